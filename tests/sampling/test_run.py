"""One intercepted call with a scripted method on an exact pipeline: what resamples, what is checked, what is kept."""

import math

import pytest
import torch

from fklit.analytic.gaussian import GaussianMixture
from fklit.analytic.mixture_pipeline import MixtureOutput, MixturePipeline
from fklit.feynman_kac import Schedule, group_generators, multinomial
from fklit.pipelines.finite import NonFiniteError
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.rewards import Function
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.run import SamplingRun, without_broken
from fklit.sampling.settings import ParticleSettings, RewardSettings

STEPS = 4
DOOM = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, 0.0, 0.0]])  # of three particles of the first prompt one lives


def _pipeline(**options):
    import diffusers

    laws = {"a": GaussianMixture([[1.0]], 0.5), "b": GaussianMixture([[-1.0]], 0.5)}
    return MixturePipeline(laws, laws["a"], diffusers.DDIMScheduler(clip_sample=False, **options))


class Scripted(SamplingRun):
    """Takes given log potentials at given steps; where nothing is given it does not touch the weights."""

    def __init__(self, pipeline, script, *, resamples=True, weighs=False, reward=None, eta=1.0, **settings):
        prompts = ("a", "b")
        particles = ParticleSettings(**{"num_particles": 3, "scheduler": "keep", **settings})
        sources = group_generators(particles.seed, range(len(prompts)))
        generators = [source for source in sources for _ in range(particles.num_particles)]
        given = {"prompts": prompts, "prompt_indices": range(len(prompts)), "generators": generators}
        term = None if reward is None else RewardTerm(pipeline, prompts, reward, particles)
        super().__init__(
            pipeline,
            **given,
            particles=particles,
            reward=term,
            resamples=resamples,
            weighs_steps=weighs,
            eta=eta,
            pipeline_kwargs={},
        )
        self.script, self.seen = script, []

    def begin(self, num_steps, noisy):
        self.begun = num_steps
        self._allow_resampling(self.script, noisy, otherwise="do without")

    def weigh(self, call):
        self.seen.append(call.sample.flatten())
        if call.index not in self.script:
            return None
        ancestors = self._system.update(self.script[call.index], may_resample=call.index in self._may_resample)
        return None if ancestors is None else (ancestors + 3 * torch.arange(2).unsqueeze(1)).flatten()

    def call(self, steps=STEPS, **options):
        with self:
            return self._pipeline(
                ["a", "b"], guidance_scale=1.0, num_inference_steps=steps, num_images_per_prompt=3,
                generator=self.generators, eta=1.0, **options,
            ).images  # fmt: skip


def test_a_run_keeps_what_it_was_made_with():
    run = Scripted(_pipeline(), {}, seed=5, resampler="ssp", ess_threshold=0.7, max_batch=6)
    assert run._settings == {
        **{
            "seed": 5,
            "num_particles": 3,
            "resampler": "ssp",
            "ess_threshold": 0.7,
            "max_batch": 6,
            "decode_batch": None,
        },
        **{"sampler": "DDIMScheduler with eta=1", "reward": None, "reward_scale": None, "potential": None},
        **{
            "reward_schedule": None,
            "tempering": None,
            "preview_decoder": None,
            "latent_reward": None,
            "stop_scoring_above": None,
        },
    }
    reward = RewardSettings(reward=Function(torch.numel), reward_scale=2.0)
    assert Scripted(_pipeline(), {}, reward=reward)._settings["reward_scale"] == 2.0
    assert run.prompts == ["a", "b"] and run.prompt_indices == [0, 1] and len(run.generators) == 6
    assert run.name_of_row(0) == "particle 0 of prompt 'a'" and run.name_of_row(5) == "particle 2 of prompt 'b'"


@pytest.mark.parametrize(
    ("threshold", "resamples", "may"), [(0.5, True, True), (0.0, True, False), (0.5, False, False)]
)
def test_only_noisy_steps_before_the_last_may_resample(threshold, resamples, may):
    run = Scripted(_pipeline(), {}, ess_threshold=threshold, resamples=resamples)
    run._interception.num_steps = 5
    asked = []

    def noisy(steps):
        asked.append(list(steps))
        return {step: step != 2 for step in steps}

    run._allow_resampling([0, 2, 3, 4], noisy, otherwise="do without")
    assert run._may_resample == (frozenset({0, 3}) if may else frozenset())
    assert asked == ([[0, 2, 3]] if may else [])


def test_a_sampler_without_noise_is_refused_where_something_would_resample():
    run = Scripted(_pipeline(), {}, eta=0.0)
    run._interception.num_steps = 5
    with pytest.raises(
        DeterministicSamplerError, match=r"the sampler DDIMScheduler with eta=0 injects no noise .*, or do without\."
    ):
        run._allow_resampling([1, 4], lambda steps: dict.fromkeys(steps, False), otherwise="do without")
    run._allow_resampling([4], lambda steps: {}, otherwise="do without")
    run._allow_resampling([], lambda steps: {}, otherwise="do without")
    assert run._may_resample == frozenset()


def test_what_all_results_share():
    run = Scripted(_pipeline(), {1: DOOM, 3: torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, math.log(4)]])})
    run.call()
    shared = run._shared_results(1)
    assert run.begun == shared["num_steps"] == STEPS and len(run.seen) == STEPS
    assert shared["ancestors"].tolist() == [[[0, 0, 0], [0, 1, 2]]]
    assert shared["resampled"].tolist() == [[True, False]]
    size = (1 + math.e + math.e**2) ** 2 / (1 + math.e**2 + math.e**4)
    torch.testing.assert_close(shared["ess"], torch.tensor([[1.0, 3.0], [size, 2.0]]).double())
    expected = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, math.log(4)]]).double().log_softmax(dim=1)
    torch.testing.assert_close(shared["log_weights"], expected)
    evidence = [math.log((1 + math.e + math.e**2) / 3 / 3), math.log(2)]
    torch.testing.assert_close(shared["log_z"], torch.tensor(evidence).double())
    assert shared["degenerate"].tolist() == [False, False] and shared["dropped"].tolist() == [0, 0]
    assert (shared["prompts"], shared["prompt_indices"]) == (["a", "b"], [0, 1])
    assert shared["settings"] is run._settings
    budget = shared["budget"]
    assert (budget.denoiser_calls, budget.decodes, budget.reward_calls) == (6 * STEPS, 0, 0)
    assert budget.seconds > 0 and budget.peak_memory_bytes > 0


def test_children_are_drawn_from_the_resampled_parents():
    run = Scripted(_pipeline(), {1: DOOM})
    run.call()
    plain = Scripted(_pipeline(), {})
    plain.call()
    assert torch.equal(run.seen[1], plain.seen[1]) and torch.equal(run.seen[2][3:], plain.seen[2][3:])
    assert not torch.equal(run.seen[2][:3], plain.seen[2][:3]) and len(run.seen[2][:3].unique()) == 3


def test_nothing_weighed_is_an_empty_trace():
    run = Scripted(_pipeline(), {2: torch.zeros(2, 3)})
    run.call()
    shared = run._shared_results(0)
    assert shared["ancestors"].shape == (0, 2, 3) and shared["ancestors"].dtype == torch.int64
    assert shared["resampled"].shape == (0, 2) and shared["resampled"].dtype == torch.bool
    assert shared["ess"].tolist() == [[3.0, 3.0]]
    run = Scripted(_pipeline(), {1: torch.zeros(2, 3)})
    run.call()
    assert run._shared_results(1)["ancestors"].tolist() == [[[0, 1, 2], [0, 1, 2]]]
    assert run._shared_results(1)["resampled"].tolist() == [[False, False]]


def test_the_reward_adds_to_the_budget_and_is_loaded_before_the_call():
    order = []

    class Slow(Function):
        def load(self):
            order.append("load")
            return super().load()

    reward = Slow(lambda images: images.flatten(1).sum(1))
    settings = RewardSettings(
        reward=reward, reward_scale=1.0, decode=lambda x: x, reward_schedule=Schedule(indices=(0,))
    )
    pipeline = _pipeline()
    run = Scripted(pipeline, {2: torch.zeros(2, 3)}, reward=settings)
    pipeline.unet.register_forward_pre_hook(lambda *_: order.append("denoise"))
    samples = run.call()
    assert order[:2] == ["load", "denoise"]
    run._reward.begin(STEPS)
    run._reward.score(samples, where="here")
    run._reward.close(samples, torch.zeros(6, dtype=torch.bool))
    budget = run._shared_results(0)["budget"]
    assert (budget.decodes, budget.reward_calls, budget.reward_checks) == (6, 12, 1)


def test_a_run_is_closed_once_and_after_the_call():
    run = Scripted(_pipeline(), {1: torch.zeros(2, 3)})
    with pytest.raises(RuntimeError, match=r"finish\(\) was called before the pipeline ran"):
        run._check_finished()
    with run, pytest.raises(RuntimeError, match="before the pipeline ran"):
        run._check_finished()
    run = Scripted(_pipeline(), {1: torch.zeros(2, 3)})
    run.call()
    run._check_finished()
    run._shared_results(1)
    with pytest.raises(RuntimeError, match=r"finish\(\) was called twice; make a new Scripted for another call"):
        run._check_finished()


def test_a_swap_of_the_sampler_is_told_and_undone():
    import diffusers

    pipeline = _pipeline()
    pipeline.scheduler = own = diffusers.PNDMScheduler(skip_prk_steps=True)
    run = Scripted(pipeline, {}, eta=None, scheduler="auto")
    with pytest.warns(SchedulerSwapWarning, match="in place of PNDMScheduler"), run:
        assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    assert pipeline.scheduler is own


class Edits(MixturePipeline):
    """Moves its samples between steps."""

    def __call__(self, prompt, *, generator, num_inference_steps, eta, **options):
        x, which = torch.zeros(len(generator), 1, 1, 1), torch.zeros(len(generator), dtype=torch.int64)
        self.scheduler.set_timesteps(num_inference_steps)
        for timestep in self.scheduler.timesteps:
            output = self.unet(x, which=which, laws=(self.unconditional,), scale=0.6, sigma=0.8)
            x = self.scheduler.step(output, timestep, x, generator=generator, eta=eta, return_dict=False)[0] + 0.1
        return MixtureOutput(x)


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ({}, False),
        ({"resamples": False, "weighs": True}, False),
        ({"resamples": False}, True),
        ({"ess_threshold": 0.0}, True),
        ({"ess_threshold": 0.0, "weighs": True}, False),
    ],
)
def test_latents_may_be_edited_where_nothing_depends_on_the_law_of_a_step(options, accepted):
    pipeline = _pipeline()
    run = Scripted(Edits(pipeline.laws, pipeline.unconditional, pipeline.scheduler), {}, **options)
    if accepted:
        assert run.call().shape == (6, 1, 1, 1)
    else:
        with pytest.raises(UnsupportedPipelineError, match="Edits edits latents between steps"):
            run.call()


def test_resampling_follows_the_settings():
    run = Scripted(
        _pipeline(), {}, seed=7, resampler=multinomial, ess_threshold=0.9, on_nan="drop", on_degenerate="keep"
    )
    system = run._system
    assert (system.resampler, system.ess_threshold, system.on_nan, system.on_degenerate) == (
        *(multinomial, 0.9, "drop", "keep"),
    )
    expected = group_generators(7, 2, stream="resampling")
    assert [g.initial_seed() for g in system.generator] == [g.initial_seed() for g in expected]


class Breaks(torch.nn.Module):
    """The denoiser of a pipeline, which returns NaN for one row from one call on."""

    def __init__(self, inner, call, row):
        super().__init__()
        self.inner, self.call, self.row, self.count = inner, call, row, 0

    def forward(self, sample, **options):
        output = self.inner(sample, **options)
        if self.count == self.call:
            output[self.row] = math.nan
        self.count += 1
        return output


def test_a_broken_denoiser_is_named_with_the_step_and_the_particle():
    pipeline = _pipeline()
    pipeline.unet = Breaks(pipeline.unet, call=2, row=4)
    with pytest.raises(NonFiniteError, match=r"at step 2 of 4 the denoiser \(Breaks\) .* particle 1 of prompt 'b'"):
        Scripted(pipeline, {}).call()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (0, r"at step 0 of 4 the call \(MixturePipeline\) .*particle 2 of prompt 'a'"),
        (1, r"at step 1 of 4 the scheduler \(DDIMScheduler\) .*particle 2 of prompt 'a'"),
    ],
)
def test_broken_samples_are_traced_to_the_call_or_the_scheduler(index, message):
    pipeline = _pipeline()
    run = Scripted(pipeline, {})
    sample, output = torch.zeros(6, 1, 1, 1), torch.zeros(6, 1, 1, 1)
    call = StepCall(index, STEPS, timestep=1, sample=sample, model_output=output, scheduler=pipeline.scheduler)
    assert run.step(call) is None
    sample[2] = math.inf
    with pytest.raises(NonFiniteError, match=message):
        run.step(call)
    assert Scripted(pipeline, {}, on_nan="drop").step(call) is None


def test_dropped_particles_are_found_among_the_samples():
    strict, lenient = Scripted(_pipeline(), {}), Scripted(_pipeline(), {}, on_nan="drop")
    samples = strict.call().clone()
    assert torch.equal(lenient.call(), samples)
    assert strict.check_samples(samples).tolist() == lenient.check_samples(samples).tolist() == [False] * 6
    broken = samples.clone()
    broken[4] = math.nan
    assert lenient.check_samples(broken).tolist() == [False, False, False, False, True, False]
    with pytest.raises(NonFiniteError, match=r"at the end the decoder \(MixturePipeline\) .*particle 1 of prompt 'b'"):
        strict.check_samples(broken)
    lenient._interception.returned[0] = math.inf
    assert lenient.check_samples(samples).tolist() == [True, False, False, False, False, False]
    strict._interception.returned[0] = math.inf
    with pytest.raises(NonFiniteError, match=r"at the end the scheduler \(DDIMScheduler\) .*particle 0 of prompt 'a'"):
        strict.check_samples(samples)
    assert lenient.check_samples(samples[:3]).tolist() == [False] * 3, "values of another number of rows say nothing"


def test_broken_samples_are_shown_as_zeros():
    samples = torch.full((2, 3, 2, 2), 2.0)
    shown = without_broken(samples, torch.tensor([False, True]))
    assert shown[0].unique().tolist() == [2.0] and shown[1].unique().tolist() == [0.0]
