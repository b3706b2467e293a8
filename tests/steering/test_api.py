"""fklit.steer on real pipeline classes: equal to the base where nothing is steered, exact where something is."""

import json
import math

import pytest
import torch
from tiny import tiny_ddpm, tiny_img2img, tiny_sdxl, tiny_stable_diffusion
from tiny_clip import write_tiny_clip

import fklit
from fklit.feynman_kac import Adaptive, Linear, group_generators
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.rewards.base import RewardError
from fklit.steering.run import DeterministicSamplerError, SteeringRun
from fklit.steering.settings import SteeringSettings

STEPS = 6
SCHEDULE = fklit.Schedule(indices=(1, 2, 3, 4))


def brightness(images):
    return 100 * images.mean((1, 2, 3))


def _scheduler(name):
    import diffusers

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return {
        "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False, **betas),
        "ddpm": lambda: diffusers.DDPMScheduler(clip_sample=False, **betas),
        "euler-ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**betas),
        "dpm-sde": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **betas),
        "pndm": lambda: diffusers.PNDMScheduler(skip_prk_steps=True, **betas),
    }[name]()


SAMPLERS = [("ddim", 0.0), ("ddim", 1.0), ("ddpm", None), ("euler-ancestral", None), ("dpm-sde", None)]


def _call(eta=1.0, **options):
    given = {"num_inference_steps": STEPS, "guidance_scale": 3.0, **options}
    return given if eta is None else {**given, "eta": eta}


def _steer(pipeline, prompt="a cat", **options):
    given = {
        "reward": brightness,
        "reward_scale": 3.0,
        "reward_schedule": SCHEDULE,
        "pipeline_kwargs": _call(),
        **options,
    }
    return fklit.steer(pipeline, prompt, **given)


def _base(pipeline, num_particles, *, seed=0, index=0, **call):
    (generator,) = group_generators(seed, [index])
    return pipeline(
        prompt="a cat", num_images_per_prompt=num_particles, generator=[generator] * num_particles, **call
    ).images


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


@pytest.mark.parametrize("build", [tiny_stable_diffusion, tiny_sdxl])
@pytest.mark.parametrize(("name", "eta"), SAMPLERS)
@pytest.mark.parametrize(("num_particles", "scale"), [(4, 0.0), (1, 50.0)])
def test_nothing_to_steer_equals_the_base_bit_for_bit(build, name, eta, num_particles, scale):
    pipeline = build()
    pipeline.scheduler = _scheduler(name)
    reference = _base(pipeline, num_particles, output_type="latent", **_call(eta))
    settings = SteeringSettings(
        reward=brightness, num_particles=num_particles, reward_scale=scale, reward_schedule=SCHEDULE
    )
    with SteeringRun(pipeline, ["a cat"], settings) as run:
        latents = pipeline(
            prompt="a cat",
            num_images_per_prompt=num_particles,
            generator=run.generators,
            output_type="latent",
            **_call(eta),
        ).images
    assert torch.equal(latents, reference)
    images = _base(pipeline, num_particles, output_type="pt", **_call(eta))
    result = _steer(pipeline, num_particles=num_particles, reward_scale=scale, pipeline_kwargs=_call(eta))
    assert torch.equal(result.samples[0], images)
    torch.testing.assert_close(result.rewards[0], brightness(images).double())
    if num_particles == 1:
        torch.testing.assert_close(result.log_z, scale * result.rewards[:, 0])
    assert result.num_steps == STEPS
    assert result.reward_path.shape == (4, 1, num_particles)


def test_budget_is_what_was_spent(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    result = _steer(pipeline, ["a cat", "a dog"], num_particles=4)
    assert result.budget.denoiser_calls == 2 * 8 * STEPS  # guidance evaluates two rows a particle
    assert result.budget.decodes == 8 * (4 + 1)  # four scored steps and the returned images, decoded once
    assert result.budget.reward_calls == 8 * (4 + 1)
    assert result.budget.reward_checks == 1  # one sample alone: do scores depend on the batch?
    assert result.budget.seconds > 0
    assert result.budget.peak_memory_bytes > 0
    assert result.previews.shape == (4, 2, 4, 3, 16, 16)
    assert result.previews.dtype == torch.uint8


@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")
@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler-ancestral", "dpm-sde"])
def test_products_of_potentials_close_on_the_terminal_reward(pipeline, name):
    """With importance sampling log Z is exactly the log mean of exp(scale * r), for every potential (test D1)."""
    pipeline.scheduler = _scheduler(name)
    for potential in ("difference", "max", "sum", "max-statistic", "sum-statistic", "rt", "terminal"):
        result = _steer(pipeline, potential=potential, ess_threshold=0.0, scheduler="keep", pipeline_kwargs=_call(None))
        expected = (3.0 * result.rewards).logsumexp(1) - math.log(4)
        torch.testing.assert_close(result.log_z, expected, rtol=0, atol=1e-9)
        weights = torch.softmax(3.0 * result.rewards, dim=1)
        torch.testing.assert_close(result.log_weights.exp(), weights, rtol=0, atol=1e-9)
        assert int(result.unique_roots) == 4


def test_prompts_do_not_touch_each_other(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    together = _steer(pipeline, ["a cat", "a dog", "a cat"], max_batch=4, reward_scale=30.0)
    assert together.resampled.any()
    assert not torch.equal(together.samples[0], together.samples[2]), "another index is another stream of noise"
    for b, prompt in enumerate(["a cat", "a dog", "a cat"]):
        alone = _steer(pipeline, prompt, prompt_indices=[b], max_batch=4, reward_scale=30.0)
        assert torch.equal(alone.samples[0], together.samples[b])
        assert torch.equal(alone.ancestors[:, 0], together.ancestors[:, b])
        assert torch.equal(alone.log_weights[0], together.log_weights[b])
        assert torch.equal(alone.reward_path[:, 0], together.reward_path[:, b])


def test_a_scale_that_comes_with_the_weights_of_a_reward_is_found(pipeline, tmp_path):
    folder = write_tiny_clip(tmp_path)
    result = _steer(pipeline, reward=fklit.rewards.CLIPScore(str(folder)), reward_scale=None)
    assert result.settings["reward_scale"] == fklit.rewards.CLIPScore(str(folder)).load().suggested_scale


def test_constant_added_to_the_reward_changes_log_z_only(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    for potential in ("difference", "max"):
        plain = _steer(pipeline, potential=potential, num_particles=8)
        moved = _steer(pipeline, potential=potential, num_particles=8, reward=lambda x: brightness(x) + 1024.0)
        assert torch.equal(plain.ancestors, moved.ancestors)
        assert torch.equal(plain.samples, moved.samples)
        torch.testing.assert_close(moved.log_z, plain.log_z + 3.0 * 1024.0, rtol=0, atol=1e-3)


def test_extreme_rewards_have_finite_weights(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    for sign in (1, -1):
        result = _steer(pipeline, reward=lambda x, sign=sign: sign * 1e4 * brightness(x), reward_scale=1.0)
        assert torch.isfinite(result.log_z).all()
        assert torch.isfinite(result.log_weights.exp()).all()


def test_best_of_n_runs_on_any_sampler(pipeline):
    for name in ("pndm", "ddim"):
        pipeline.scheduler = _scheduler(name)
        result = _steer(pipeline, potential="terminal", num_particles=3, pipeline_kwargs=_call(None))
        assert torch.equal(result.samples[0], _base(pipeline, 3, output_type="pt", **_call(None)))
        assert result.best()[0].tobytes() == result.images[0][int(result.rewards[0].argmax())].tobytes()
        assert result.steps == ()


def test_auto_swaps_a_deterministic_scheduler_says_so_and_restores_it(pipeline):
    pipeline.scheduler = own = _scheduler("pndm")
    with pytest.warns(SchedulerSwapWarning, match="DDIMScheduler with eta=1 in place of PNDMScheduler"):
        result = _steer(pipeline, pipeline_kwargs=_call(None))
    assert pipeline.scheduler is own
    assert result.sampler == "DDIMScheduler with eta=1"
    with pytest.warns(SchedulerSwapWarning):
        other = _steer(pipeline, pipeline_kwargs=_call(0.5))
    assert other.sampler == "DDIMScheduler with eta=0.5"
    pipeline.scheduler = _scheduler("ddim")
    with pytest.warns(SchedulerSwapWarning):
        forced = _steer(pipeline, pipeline_kwargs=_call(None))
    assert torch.equal(forced.samples, _steer(pipeline, pipeline_kwargs=_call(1.0)).samples)


def test_deterministic_sampler_is_refused_only_where_it_must_resample(pipeline):
    pipeline.scheduler = _scheduler("pndm")
    with pytest.raises(DeterministicSamplerError, match=r"injects no noise.*scheduler='auto'"):
        _steer(pipeline, scheduler="keep", pipeline_kwargs=_call(None))
    for harmless in ({"ess_threshold": 0.0}, {"num_particles": 1}, {"reward_scale": 0.0}, {"potential": "terminal"}):
        _steer(pipeline, scheduler="keep", pipeline_kwargs=_call(None), **harmless)
    pipeline.scheduler = _scheduler("ddim")
    with pytest.raises(DeterministicSamplerError, match="DDIMScheduler with eta=0"):
        _steer(pipeline, pipeline_kwargs=_call(0.0))


def test_best_of_n_with_the_sampler_of_steering(pipeline):
    """`stochastic` without resampling samples what an idle run with `auto` samples, bit for bit."""
    pipeline.scheduler = _scheduler("pndm")
    with pytest.warns(SchedulerSwapWarning):
        idle = _steer(pipeline, reward_scale=1e-12, pipeline_kwargs=_call(None))
    assert not idle.resampled.any()
    terminal = {"potential": "terminal", "pipeline_kwargs": _call(None)}
    best_of_n = _steer(pipeline, scheduler="stochastic", **terminal)
    assert best_of_n.sampler == idle.sampler == "DDIMScheduler with eta=1"
    assert torch.equal(best_of_n.samples, idle.samples)
    assert _steer(pipeline, scheduler="stochastic", num_particles=1, **terminal).sampler == idle.sampler
    assert _steer(pipeline, **terminal).sampler == "PNDMScheduler"


def test_other_pipelines():
    image_to_image = tiny_img2img()
    sources = [torch.rand(3, 16, 16), torch.rand(3, 16, 16)]
    result = fklit.steer(
        image_to_image, ["a", "b"], reward=brightness, reward_scale=10.0, num_particles=3,
        reward_schedule=fklit.Schedule(0.0, 0.8), pipeline_kwargs={**_call(), "image": sources, "strength": 0.5},
    )  # fmt: skip
    assert result.num_steps == 3
    alone = fklit.steer(
        image_to_image, ["b"], prompt_indices=[1], reward=brightness, reward_scale=10.0, num_particles=3,
        reward_schedule=fklit.Schedule(0.0, 0.8), pipeline_kwargs={**_call(), "image": sources[1:], "strength": 0.5},
    )  # fmt: skip
    torch.testing.assert_close(result.samples[1], alone.samples[0], rtol=1e-4, atol=1e-5)

    unconditional = tiny_ddpm()
    result = fklit.steer(
        unconditional, reward=brightness, reward_scale=10.0, num_particles=4,
        reward_schedule=fklit.Schedule(0.2, 0.8, 1), pipeline_kwargs={"num_inference_steps": 5},
    )  # fmt: skip
    assert result.samples.shape == (1, 4, 3, 16, 16)
    assert result.budget.denoiser_calls == 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    pipeline = tiny_stable_diffusion().to(dtype)
    result = _steer(pipeline)
    assert result.log_weights.dtype == result.rewards.dtype == torch.float64
    assert result.samples.dtype == torch.float32
    assert torch.isfinite(result.rewards).all()


def test_tempering_and_resamplers(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    for options in (
        {"tempering": Linear()},
        {"tempering": Adaptive(0.7)},
        {"resampler": "multinomial", "ess_threshold": 1.0},
        {"resampler": "ssp"},
    ):
        result = _steer(pipeline, **options)
        assert torch.isfinite(result.log_z).all()
    assert torch.allclose(result.log_weights.exp().sum(1), torch.ones(1, dtype=torch.float64))


def test_result_is_json_and_pictures(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    result = _steer(pipeline, ["a cat", "a dog"], num_particles=3)
    record = json.loads(json.dumps(result.record(1)))
    assert record["prompt"] == "a dog"
    assert record["budget"]["denoiser_calls"] == 2 * 3 * STEPS
    assert record["best"] == int(result.best_index()[1])
    assert len(result.images) == 2
    assert len(result.images[0]) == 3
    assert result.images[0][0].size == (16, 16)
    assert [len(row) for row in result.sample(5)] == [5, 5]
    assert result.reward_mean.shape == (2,)
    with pytest.raises(ValueError, match="n=0"):
        result.sample(0)


def test_resampling_draws_from_a_stream_of_its_own(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    settings = SteeringSettings(reward=brightness, reward_scale=1.0, seed=3)
    run = SteeringRun(pipeline, ["a cat", "a dog"], settings, prompt_indices=[5, 9])
    noise = [generator.initial_seed() for generator in run.generators[:: settings.num_particles]]
    assert noise == [g.initial_seed() for g in group_generators(3, [5, 9], stream="noise")]
    resampling = [generator.initial_seed() for generator in run._system.generator]
    assert resampling == [g.initial_seed() for g in group_generators(3, [5, 9], stream="resampling")]
    assert not set(noise) & set(resampling)


def test_context_manager_takes_what_the_pipeline_returns(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    settings = SteeringSettings(
        reward=brightness, num_particles=3, reward_scale=1.0, reward_schedule=SCHEDULE, pipeline_kwargs=_call()
    )
    run = SteeringRun(pipeline, ["a cat"], settings)
    with run:
        images = pipeline(prompt="a cat", num_images_per_prompt=3, generator=run.generators, **_call()).images
    result = run.finish(images)  # PIL images
    expected = _steer(pipeline, num_particles=3, reward_scale=1.0)
    torch.testing.assert_close(result.samples, expected.samples, rtol=0, atol=1 / 255)
    with pytest.raises(RuntimeError, match="twice"):
        run.finish(images)
    with pytest.raises(RuntimeError, match="before the pipeline ran"):
        SteeringRun(pipeline, ["a cat"], settings).finish(images)


def test_a_safety_checker_sees_what_is_returned(pipeline):
    """Scores are those of what was sampled; what the checker blackens is returned black, and reported."""
    pipeline.scheduler = _scheduler("ddim")
    plain = _steer(pipeline, num_particles=3)

    def checker(image, device, dtype):
        return image * 0, [True, False, True]  # flagged pictures are zeros, which diffusers takes as black

    pipeline.run_safety_checker = checker
    try:
        checked = _steer(pipeline, num_particles=3)
    finally:
        del pipeline.run_safety_checker
    assert checked.flagged == [[True, False, True]]
    assert plain.flagged is None
    assert torch.equal(checked.rewards, plain.rewards)
    assert checked.samples[0, 0].max() == 0


# Bad input: one line each, with what was expected, what was given and the fix.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_particles": 0}, ValueError, "num_particles=0"),
        ({"num_particles": 2.5}, TypeError, r"num_particles=2\.5"),
        ({"prompt": []}, ValueError, "prompts expected at least one string"),
        ({"prompt": [3]}, ValueError, "prompts expected at least one string .* got \\[3\\]"),
        ({"prompt": None}, ValueError, "StableDiffusionPipeline expected a prompt, got None"),
        ({"potential": "diference"}, ValueError, "'diference'.*'difference'"),
        ({"resampler": "sistematic"}, ValueError, "'sistematic'.*'systematic'"),
        ({"reward_scale": -1.0}, ValueError, "negate the reward"),
        ({"reward_scale": math.inf}, ValueError, "reward_scale expected a finite number"),
        ({"reward_scale": None}, ValueError, "suggests none, got None; give a number"),
        ({"ess_threshold": 1.5}, ValueError, r"ess_threshold=1\.5"),
        ({"scheduler": "swap"}, ValueError, "'swap'.*'auto', 'stochastic', 'keep'"),
        ({"max_batch": 0}, ValueError, "max_batch=0"),
        ({"prompt_indices": [1, 2]}, ValueError, "expected 1 different numbers"),
        ({"on_nan": "ignore"}, ValueError, "'ignore'.*'drop'"),
        ({"reward": 3}, TypeError, "expected a fklit reward or a function"),
        ({"reward_schedule": fklit.Schedule(indices=(6,))}, ValueError, "Step 6 is outside a run of 6 steps"),
        ({"pipeline_kwargs": {"num_inference_step": 5}}, TypeError, "did you mean 'num_inference_steps'"),
        ({"pipeline_kwargs": {"generator": None}}, TypeError, "it follows from the seed"),
        ({"pipeline_kwargs": {"zzz": 1}}, TypeError, "arguments of StableDiffusionPipeline, got 'zzz'; it accepts"),
    ],
)
def test_bad_arguments_are_refused(pipeline, options, error, message):
    pipeline.scheduler = own = _scheduler("ddim")
    given = {"prompt": "a cat", **options}
    with pytest.raises(error, match=message):
        _steer(pipeline, **given)
    assert pipeline.scheduler is own
    assert "step" not in own.__dict__


def _raise(images):
    raise KeyError("missing label")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (_raise, r"at step 1 of 6: .*score\(s\) from [\w.]*test_api._raise, got KeyError: 'missing label'"),
        (lambda x: brightness(x)[:1], "at step 1 of 6: .*expected scores .* from .*<lambda>, got "),
        (lambda x: "high", "at step 1 of 6"),
        (
            lambda x: brightness(x) * math.nan,
            r"at step 1 of 6: expected finite scores of .*<lambda>, got nan for particle 0 of prompt 'a cat'",
        ),
        (lambda x: brightness(x) + math.inf, "got inf.*4 of 4 scores"),
    ],
)
def test_bad_rewards_are_refused(pipeline, reward, message):
    pipeline.scheduler = own = _scheduler("ddim")
    with pytest.raises(RewardError, match=message):
        _steer(pipeline, reward=reward)
    assert "step" not in own.__dict__


def test_rewards_of_half_precision_and_integers_are_accepted(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    for reward in (lambda x: brightness(x).half(), lambda x: brightness(x).int(), lambda x: brightness(x).tolist()):
        assert torch.isfinite(_steer(pipeline, reward=reward).log_z).all()


def test_nan_can_be_dropped_and_minus_infinity_kills(pipeline):
    pipeline.scheduler = _scheduler("ddim")

    def nan_for_slot_1(images):
        rewards = brightness(images)
        return torch.where(torch.arange(len(images)) == 1, math.nan, rewards)

    result = _steer(pipeline, reward=nan_for_slot_1, on_nan="drop", ess_threshold=0.0)
    assert result.log_weights[0, 1] == -math.inf
    assert torch.isfinite(result.log_z).all()
    assert int(result.best_index()) != 1

    def kill_dogs(images, prompts):
        return torch.tensor([-math.inf if prompt == "a dog" else 1.0 for prompt in prompts])

    with pytest.raises(RuntimeError, match="on_degenerate"):
        _steer(pipeline, ["a cat", "a dog"], reward=kill_dogs)
    result = _steer(pipeline, ["a cat", "a dog"], reward=kill_dogs, on_degenerate="keep")
    assert result.degenerate.tolist() == [False, True]
    assert result.log_z[1] == -math.inf
    assert torch.isfinite(result.log_z[0])
    json.dumps(result.record(1), allow_nan=False)


def test_flow_matching_by_a_scheduler_without_kernel_is_refused(pipeline):
    import diffusers

    pipeline.scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    with pytest.raises(UnsupportedPipelineError, match=r"flow-matching model.*potential='terminal'"):
        _steer(pipeline)
    pipeline.scheduler = _scheduler("ddim")
