"""Guidance through real schedulers and the interception, against quadrature and against the base pipeline."""

import math

import pytest
import torch
from mixtures import FIRST, GRID, SECOND, SPACING, experts, truth
from tiny import tiny_ddpm, tiny_sdxl, tiny_stable_diffusion

import fklit
from fklit.analytic import GaussianMixture
from fklit.analytic.mixture_pipeline import MixturePipeline
from fklit.correctors import (
    ComposedPrompt,
    Evaluation,
    GuidanceRun,
    GuidanceSettings,
    Interval,
    Target,
    WeightDegeneracyWarning,
    prompt_divergence,
)
from fklit.correctors.guidance.weight import guidance_weight, step_factor
from fklit.correctors.simulation.kernel_weight import kernel_weight
from fklit.correctors.simulation.rate import dispersion_rate
from fklit.correctors.simulation.reverse_kernel import reverse_mean
from fklit.feynman_kac import group_generators
from fklit.metrics.distributions import w1_to_density
from fklit.pipelines.denoised import UnknownSchedulerError
from fklit.pipelines.guidance_predictions import guidance_predictions
from fklit.pipelines.interception import Interception, UnsupportedPipelineError
from fklit.pipelines.noise_levels import StepLevels
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.step_call import StepCall

STEPS = 5
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOTHING_WEIGHED = ({"weight_schedule": fklit.Schedule(indices=())}, {"correction": 0.0})
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler")


def _scheduler(name, **options):
    import diffusers

    plain = {} if name.startswith(("Euler", "DPM")) else {"clip_sample": False}
    return getattr(diffusers, name)(**{**plain, **options})


def _mixtures(name="DDIMScheduler", **options):
    return MixturePipeline({"second": SECOND, "first": FIRST}, FIRST, _scheduler(name, **options))


def _correct_mixtures(pipeline, prompt="second", *, steps=30, particles=4000, **options):
    eta = {"eta": 1.0} if "DDIM" in type(pipeline.scheduler).__name__ else {}
    given = {"guidance_scale": 2.0, "ess_threshold": 0.9, "scheduler": "keep", **options}
    return fklit.correct(
        pipeline, prompt, num_particles=particles, pipeline_kwargs={"num_inference_steps": steps, **eta}, **given
    )


def _w1(result, mass):
    x, weights = result.samples.flatten().double(), result.log_weights[0].exp()
    return w1_to_density(x, weights, GRID, mass)


@pytest.mark.slow
def test_mixtures_through_a_scheduler():
    """The bounds of the slow test, on one seed."""
    first, second, _ = experts()
    mass = truth(Target.guided(second, first, 2.0)).mass
    pipeline = _mixtures()
    corrected, heuristic = (_correct_mixtures(pipeline, correction=c) for c in (1.0, 0.0))
    assert _w1(corrected, mass) < 0.15 and _w1(heuristic, mass) > 0.2
    assert corrected.resampled.any() and not heuristic.resampled.any()
    assert torch.equal(heuristic.log_weight_std[:1], corrected.log_weight_std[:1]), "of the exact weights"
    assert corrected.budget.denoiser_calls == heuristic.budget.denoiser_calls == 2 * 30 * 4000


@pytest.mark.slow
@pytest.mark.parametrize("increment", ["net_interval", "kernel"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_corrected(name, increment):
    first, second, _ = experts()
    mass = truth(Target.guided(second, first, 2.0)).mass
    pipeline, seeds = _mixtures(name), range(4)

    def mean(**options):
        return sum(_w1(_correct_mixtures(pipeline, seed=s, **options), mass) for s in seeds) / len(seeds)

    assert mean(increment=increment) < 0.12
    if increment == "kernel":
        return
    assert mean(correction=0.0) > 0.2
    # With the variance that these schedulers draw with, the weight is worse than none.
    import fklit.correctors.guidance.run as guidance

    exact = guidance.guidance_weight

    def small(predictions, exponents, levels, increment):
        shrink = (levels.sigma / max(levels.next_sigma, 1e-3 * levels.sigma)) ** 2
        return shrink * exact(predictions, exponents, levels, increment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance, "guidance_weight", small)
        with pytest.warns(
            WeightDegeneracyWarning, match=r"fewer than 1\.5 effective particles of 4000 in 1 of 1 prompts"
        ):
            assert mean() > 0.3


@pytest.mark.slow
def test_composed_prompts_are_products():
    first, second, third = experts()
    target = Target.composed(first, [second, third], [1.5, -0.4])
    from mixtures import THIRD

    pipeline = MixturePipeline({"second": SECOND, "third": THIRD}, FIRST, _scheduler("DDIMScheduler"))
    prompt = ComposedPrompt(["second", "third"], [1.5, -0.4])
    mass = truth(target).mass
    corrected, heuristic = (
        sum(_w1(_correct_mixtures(pipeline, [prompt], correction=c, seed=s, steps=60), mass) for s in range(3)) / 3
        for c in (1.0, 0.0)
    )
    assert corrected < 0.1 and corrected < 0.7 * heuristic


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "bound"), [(60, 0.25), pytest.param(200, 0.12, marks=pytest.mark.slow)])
def test_a_reward_in_the_same_run(steps, bound):
    """The tilt lifts the rare mode, and with it the error of few steps; more steps converge, the heuristic does not."""
    first, second, _ = experts()
    log_gamma = Target.guided(second, first, 2.0).log_gamma(GRID[None, :, None], 0.0)[0]
    log_gamma = log_gamma - (GRID - 1.0).square()
    mass = torch.softmax(log_gamma, dim=0)

    def reward(x):
        return -((x.reshape(-1) - 1.0) ** 2)

    options = {"reward": reward, "reward_scale": 1.0, "decode": lambda x: x, "steps": steps}
    options["reward_schedule"] = fklit.Schedule(0.1, 0.95, 2)
    pipeline = _mixtures()
    results = [_correct_mixtures(pipeline, seed=seed, **options) for seed in range(2)]
    heuristic = [_correct_mixtures(pipeline, seed=seed, correction=0.0, **options) for seed in range(2)]
    assert sum(_w1(result, mass) for result in results) / 2 < bound
    assert sum(_w1(result, mass) for result in heuristic) / 2 > 0.35
    assert results[0].rewards.shape == (1, 4000) and results[0].reward_path.shape[1:] == (1, 4000)


def test_only_chosen_steps_are_weighed():
    pipeline = _mixtures()
    run = {"steps": 12, "particles": 50, "ess_threshold": 0.0}
    whole, early = (
        _correct_mixtures(pipeline, weight_schedule=chosen, **run) for chosen in (None, fklit.Schedule(0, 4))
    )
    none, heuristic = (_correct_mixtures(pipeline, **options, **run) for options in NOTHING_WEIGHED)
    assert torch.equal(whole.ess[:5], early.ess[:5]) and torch.equal(early.ess[4:], early.ess[4:5].expand(8, 1))
    assert torch.equal(whole.log_weight_std[:6], early.log_weight_std[:6]) and (early.log_weight_std[6:] > 0).all(), (
        "of the exact weights"
    )
    assert torch.equal(none.log_weights, heuristic.log_weights) and torch.equal(none.samples, early.samples)
    assert early.settings["weight_schedule"] == repr(fklit.Schedule(0, 4))


@pytest.mark.parametrize("correction", [0.25, 0.5, 0.9])
def test_a_partial_correction_counts_that_share_of_the_log_weights(correction):
    run = {"steps": 12, "particles": 50, "ess_threshold": 0.0}
    whole = _correct_mixtures(_mixtures(), correction=1.0, **run)
    part = _correct_mixtures(_mixtures(), correction=correction, **run)
    assert torch.equal(whole.samples, part.samples) and torch.equal(whole.log_weight_std[0], part.log_weight_std[0])
    torch.testing.assert_close(part.log_weights, (correction * whole.log_weights).log_softmax(dim=1))
    weighted = whole.log_weights + whole.log_z.unsqueeze(1) + math.log(50)  # the unnormalized log weights
    torch.testing.assert_close(part.log_z, (correction * weighted).logsumexp(dim=1) - math.log(50))


def test_steps_without_guidance_need_no_predictions_unless_they_are_weighed(monkeypatch):
    import fklit.correctors.guidance.run as guidance

    real = guidance.guidance_predictions
    monkeypatch.setattr(
        guidance, "guidance_predictions", lambda call, scale: real(call, scale) if call.index < 3 else None
    )
    given = {"steps": 6, "particles": 20}
    result = _correct_mixtures(_mixtures(), weight_schedule=fklit.Schedule(0, 2), **given)
    assert torch.isfinite(result.log_weight_std[:3]).all() and torch.isnan(result.log_weight_std[3:]).all()
    assert torch.isnan(result.stepwise_kl[3:]).all() and result.record(0)["stepwise_kl"][3] is None
    with pytest.raises(UnsupportedPipelineError, match="at step 3"):
        _correct_mixtures(_mixtures(), **given)


@pytest.mark.slow
def test_the_stepwise_kl_of_a_prompt_is_a_divergence():
    """KL(p(x | prompt) || p(x)) by quadrature, against the sum over steps, which grows to it as steps become small."""
    points = GRID[:, None]
    first, second = (law.log_density(points) for law in (FIRST, SECOND))
    exact = float((second.exp() * (second - first)).sum()) * SPACING
    found = []
    for steps in (15, 100):
        call = {"num_inference_steps": steps, "eta": 1.0}
        check = prompt_divergence(_mixtures(), ["second"], num_samples=3000, scheduler="keep", pipeline_kwargs=call)
        found.append(check.mean)
        assert check.stepwise_kl.shape == (steps, 1) and math.isnan(check.error)
    assert abs(found[1] - exact) < 0.1 * exact < 0.2 * exact < exact - found[0]
    assert check.steps_within(math.inf) == 100 and 0 < check.steps_within(exact / 2) < 100
    with pytest.raises(ValueError, match="which it sets itself"):
        prompt_divergence(_mixtures(), ["second"], correction=1.0)
    one = prompt_divergence(
        _mixtures(), "second", num_samples=2, scheduler="keep", pipeline_kwargs={"num_inference_steps": 3}
    )
    assert one.stepwise_kl.shape == (3, 1), "one prompt, not its letters"


def test_the_information_of_predictions_that_are_not_found_is_refused(monkeypatch):
    import fklit.correctors.guidance.run as guidance

    real = guidance.guidance_predictions
    monkeypatch.setattr(
        guidance, "guidance_predictions", lambda call, scale: real(call, scale) if call.index < 3 else None
    )
    with pytest.raises(UnsupportedPipelineError, match=r"at 3 of 6 steps of MixturePipeline .* use plain"):
        prompt_divergence(
            _mixtures(), ["second"], num_samples=2, scheduler="keep", pipeline_kwargs={"num_inference_steps": 6}
        )


def test_the_weight_is_that_of_the_pure_functions():
    x = torch.randn(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predictions = [torch.randn_like(x) for _ in range(3)]
    exponents = (-1.5, 3.0, -0.5)
    levels = StepLevels(0.6, 0.8, 0.8, 0.6)
    ratio, variance = 0.75, 0.8**2 - (0.75 * 0.6) ** 2
    interval = Interval(1.0, 0.5, -math.log(ratio), 0.0, ratio, variance)
    scores = [(0.6 * d - x) / 0.64 for d in predictions]
    means = [reverse_mean(x, score, interval) for score in scores]
    ours = guidance_weight([p[0] for p in predictions], exponents, levels, "kernel")
    torch.testing.assert_close(ours, kernel_weight(x, means, exponents, interval)[0])
    # The net interval, in y = x / a.
    noise = (0.8 / 0.6) ** 2 - (0.6 / 0.8) ** 2
    scaled = tuple((d - x / 0.6) / (0.8 / 0.6) ** 2 for d in predictions)
    combined = sum(e * s for e, s in zip(exponents, scaled, strict=True))
    evaluation = Evaluation(x / 0.6, 1.0, exponents, scaled, combined)
    rate = dispersion_rate(evaluation, Interval(1.0, 0.5, 0.0, noise, 1.0, noise))
    torch.testing.assert_close(guidance_weight([p[0] for p in predictions], exponents, levels), rate[0])


def test_the_weight_is_finite_where_the_signal_is_gone():
    assert 0 < step_factor(StepLevels(0.0, 1.0, 0.1, 0.995), "kernel") < 1
    assert step_factor(StepLevels(0.0, 1.0, 0.1, 0.995), "net_interval") == 0
    assert step_factor(StepLevels(0.9, 0.436, 1.0, 0.0), "net_interval") == pytest.approx(0.81 / 0.436**2)


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def pipeline(request):
    return tiny_stable_diffusion() if request.param == "sd" else tiny_sdxl()


def _call(name):
    return {"num_inference_steps": STEPS, **({"eta": 1.0} if name.startswith("DDIM") else {})}


def _latents(pipeline, prompts, particles, prompt_indices=None, **options):
    settings = GuidanceSettings(num_particles=particles, scheduler="keep", **options)
    with GuidanceRun(pipeline, prompts, settings, prompt_indices=prompt_indices) as run:
        name = type(pipeline.scheduler).__name__
        latents = pipeline(
            prompt=run.texts, num_images_per_prompt=particles, generator=run.generators, output_type="latent",
            guidance_scale=run.call_scale, **_call(name),
        ).images  # fmt: skip
    return latents, run.finish(latents.sigmoid())


def _base(pipeline, particles, scale=5.0):
    generators = [g for g in group_generators(0, [0, 1]) for _ in range(particles)]
    return pipeline(
        prompt=["a cat", "a dog"], num_images_per_prompt=particles, generator=generators, output_type="latent",
        guidance_scale=scale, **_call(type(pipeline.scheduler).__name__),
    ).images  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_particle_and_no_correction_equal_the_base_bit_for_bit(pipeline, name):
    pipeline.scheduler = _scheduler(name, **BETAS)
    for particles, correction in ((1, 1.0), (3, 0.0)):
        found, result = _latents(
            pipeline, ["a cat", "a dog"], particles, guidance_scale=5.0, correction=correction, ess_threshold=1.0
        )
        assert torch.equal(found, _base(pipeline, particles))
        assert not result.resampled.any() and torch.allclose(
            result.log_weights.exp(), torch.tensor(1 / particles).double()
        )
        assert (result.log_weight_std > 0).all() == (particles > 1)
    weighted, result = _latents(pipeline, ["a cat", "a dog"], 3, guidance_scale=5.0, ess_threshold=0.0)
    assert torch.equal(weighted, _base(pipeline, 3)), "weights alone must not change the samples"
    assert (result.log_weights.exp() - 1 / 3).abs().max() > 1e-4


def test_a_group_is_resampled_and_does_not_depend_on_its_neighbors(pipeline):
    pipeline.scheduler = _scheduler("DDIMScheduler", **BETAS)
    options = {"guidance_scale": 7.5, "ess_threshold": 1.0, "max_batch": 4}
    both, result = _latents(pipeline, ["a cat", "a dog"], 4, **options)
    assert result.resampled[:-1].all() and not result.resampled[-1].any()
    alone, _ = _latents(pipeline, ["a dog"], 4, prompt_indices=[1], **options)
    torch.testing.assert_close(alone, both[4:], rtol=1e-3, atol=1e-3)  # text encoders see another batch
    assert result.log_weight_std.shape == (STEPS, 2) and result.ess.shape == (STEPS, 2)
    assert result.record(1)["log_weight_std"] and result.sample(3)[0][0].size == (8, 8)


@pytest.mark.filterwarnings("ignore::fklit.correctors.WeightDegeneracyWarning")
def test_composed_prompts_keep_their_copies_together(pipeline):
    """Twice the same prompt with half of the scale each is that prompt, noise, weights and resampling included."""
    pipeline.scheduler = _scheduler("DDIMScheduler", **BETAS)
    single, one = _latents(pipeline, [ComposedPrompt(["a cat"], [6.0])], 4, max_batch=4)
    double, two = _latents(pipeline, [ComposedPrompt(["a cat", "a cat"], [3.0, 3.0])], 4, max_batch=4)
    torch.testing.assert_close(double[:4], single, rtol=1e-3, atol=1e-3)
    assert torch.equal(double[:4], double[4:]), "copies of a particle stay the same, bit for bit"
    plain, usual = _latents(pipeline, ["a cat"], 4, guidance_scale=6.0, max_batch=4)
    torch.testing.assert_close(single, plain, rtol=1e-3, atol=1e-3)
    # Twice the same law is one law: between them there is no spread, so that the weights are those of one prompt.
    torch.testing.assert_close(one.log_weights, two.log_weights, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.log_weights, usual.log_weights, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [1.5, 7.5])
def test_predictions_of_real_pipelines(pipeline, scale):
    class Hook:
        def begin(self, num_steps, noisy):
            pass

        def step(self, call):
            self.found = guidance_predictions(call, scale)
            self.wrong = guidance_predictions(call, scale + 0.5)
            self.call = call

    pipeline.scheduler, hook = _scheduler("DDIMScheduler", **BETAS), Hook()
    with Interception(pipeline, hook):
        pipeline(prompt="a cat", guidance_scale=scale, num_inference_steps=2, output_type="latent")
    uncond, cond = hook.call.predictions[0].chunk(2)
    assert torch.equal(hook.found.conditional, cond) and torch.equal(hook.found.unconditional, uncond)
    assert hook.wrong is None


def test_predictions_of_two_calls_in_either_order():
    u, c = torch.randn(2, 3, 4, 8, 8)
    output = u + 4.0 * (c - u)

    def found(*predictions, scale=4.0):
        return guidance_predictions(StepCall(0, 1, 0, torch.zeros(3, 4, 8, 8), output, None, predictions), scale)

    for pair in ((u, c), (c, u)):
        predictions = found(*pair)
        assert torch.equal(predictions.conditional, c) and torch.equal(predictions.unconditional, u)
    assert torch.equal(found(torch.cat([c, u])).conditional, c)
    assert found(u, c, c) is None and found(u) is None and found() is None and found(u, c, scale=3.0) is None


def test_refusals():
    pipeline = tiny_stable_diffusion()
    call = {"num_inference_steps": 3, "eta": 1.0}
    given = {"num_particles": 2, "pipeline_kwargs": call, "scheduler": "keep"}
    with pytest.raises(UnsupportedPipelineError, match="no guidance_rescale"):
        fklit.correct(pipeline, "a", **{**given, "pipeline_kwargs": {**call, "guidance_rescale": 0.7}})
    with pytest.raises(DeterministicSamplerError, match="injects no noise"):
        fklit.correct(pipeline, "a", **{**given, "pipeline_kwargs": {"num_inference_steps": 3}})
    with pytest.raises(TypeError, match="give guidance_scale="):
        fklit.correct(pipeline, "a", **{**given, "pipeline_kwargs": {"guidance_scale": 3.0}})
    with pytest.raises(ValueError, match=r"guidance_scale expected .* got 0\.5"):
        fklit.correct(pipeline, "a", guidance_scale=0.5)
    with pytest.raises(ValueError, match="correction=2"):
        fklit.correct(pipeline, "a", correction=2)
    with pytest.raises(ValueError, match="increment='small'"):
        fklit.correct(pipeline, "a", increment="small")
    with pytest.raises(ValueError, match="expected a reward"):
        fklit.correct(pipeline, "a", reward_scale=1.0)
    with pytest.raises(ValueError, match="at least one prompt"):
        fklit.correct(pipeline, [])
    with pytest.raises(UnsupportedPipelineError, match="got DDPMPipeline, which takes no prompt"):
        fklit.correct(tiny_ddpm(), "a")
    with pytest.raises(ValueError, match="scales"):
        ComposedPrompt(["a", "b"], [1.0])
    with pytest.raises(ValueError, match="got zeros alone"):
        ComposedPrompt(["a"], [0.0])
    pipeline.scheduler = _scheduler("DDIMScheduler", **BETAS, clip_sample=True)
    with pytest.raises(UnsupportedPipelineError, match="clip_sample=False"):
        fklit.correct(pipeline, "a", **given)
    pipeline.scheduler = _scheduler("LCMScheduler", **BETAS, clip_sample=False)
    with pytest.raises(UnknownSchedulerError, match="whose noise levels are known, got LCMScheduler"):
        fklit.correct(pipeline, "a", **{**given, "pipeline_kwargs": {"num_inference_steps": 3}})
    run = GuidanceRun(tiny_stable_diffusion(), ["a"], GuidanceSettings(scheduler="keep"))
    with pytest.raises(RuntimeError, match="before the pipeline ran"):
        run.finish([])


def test_a_reward_and_a_negative_prompt_on_stable_diffusion():
    pipeline = tiny_stable_diffusion()
    result = fklit.correct(
        pipeline, ["a cat", ComposedPrompt(["a dog", "a fish"], [4.0, -1.0])], guidance_scale=4.0, num_particles=3,
        reward=lambda images: images.mean((1, 2, 3)), reward_scale=50.0, reward_schedule=fklit.Schedule(1, 4, 1),
        scheduler="keep", pipeline_kwargs={"num_inference_steps": STEPS, "eta": 1.0},
    )  # fmt: skip
    assert result.samples.shape == (2, 3, 3, 16, 16) and result.rewards.shape == (2, 3)
    assert result.ess.shape == (STEPS + 1, 2) and result.reward_path.shape == (4, 2, 3)
    assert result.prompts[1] == "a dog ^ 4 | a fish ^ -1"
    assert len(result.best()) == 2 and result.budget.reward_calls == 5 * 6
    negative = fklit.correct(
        pipeline, "a cat", num_particles=2, scheduler="keep",
        pipeline_kwargs={"num_inference_steps": STEPS, "eta": 1.0, "negative_prompt": "a dog"},
    )  # fmt: skip
    assert (negative.log_weight_std > 0).all()


def test_the_sampler_of_the_base_changes_only_if_it_must():
    pipeline = tiny_stable_diffusion()
    with pytest.warns(fklit.pipelines.stochasticity.SchedulerSwapWarning):
        result = fklit.correct(pipeline, "a", num_particles=2, pipeline_kwargs={"num_inference_steps": 3})
    assert result.settings["sampler"] == "DDIMScheduler with eta=1"
    result = fklit.correct(pipeline, "a", num_particles=1, pipeline_kwargs={"num_inference_steps": 3})
    assert result.settings["sampler"] == "DDIMScheduler"


def test_the_mixture_pipeline_without_guidance_samples_its_law():
    pipeline = _mixtures()
    result = _correct_mixtures(pipeline, guidance_scale=1.0, particles=2000, steps=60)
    assert not result.resampled.any() and (result.log_weight_std == 0).all()
    log_density = SECOND.log_density(GRID[:, None])
    assert _w1(result, log_density.exp() * SPACING) < 0.1
    assert isinstance(pipeline.unconditional, GaussianMixture)
