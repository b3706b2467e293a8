"""Look-ahead rewards where the answer is known: the target stays whatever they say, and what they say is right."""

import math
import warnings

import pytest
import torch
from timed_pipeline import TimedPipeline

import fklit
from fklit.analytic import GaussianMixture
from fklit.feynman_kac import Adaptive, Linear
from fklit.pipelines.interception import Interception
from fklit.pipelines.step_call import NetworkCall, StepCall
from fklit.pipelines.step_law import step_law
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.sampling.look_ahead import LookAhead
from fklit.sampling.look_ahead_scores import LookAheadScores
from fklit.sampling.settings import ParticleSettings
from fklit.steering.fewer_particles import FewerParticles
from fklit.steering.gradient_proposal import GradientProposal

CENTER, SCALE, STEPS = 1.0, 1.0, 10
LOOKS = {
    "few steps": LookAhead(num_steps=3),
    "many samples": LookAhead(num_samples=3, num_steps=2),
    "deterministic": LookAhead(num_steps=4, eta=0.0),
    "to the end": LookAhead(num_samples=2, num_steps=100, eta=0.5),
}


def _reward(x):
    return -((x.flatten(1) - CENTER) ** 2).sum(1) / 2


def _scheduler(name):
    import diffusers

    return {
        "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
        "ddpm": lambda: diffusers.DDPMScheduler(clip_sample=False),
        "euler": lambda: diffusers.EulerAncestralDiscreteScheduler(),
        "dpm": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
        "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
    }[name]()


def _steer(pipeline, *, groups, particles, seed=0, steps=STEPS, **changes):
    settings = {
        "reward": _reward, "reward_scale": SCALE, "num_particles": particles, "seed": seed, "decode": lambda x: x,
        "previews": False, "reward_schedule": fklit.Schedule(0, steps - 1, 2),
        "pipeline_kwargs": {"num_inference_steps": steps, "eta": 1.0},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, ["a"] * groups, **settings | changes)


def _base_variance(law):
    """Of the base sampler's samples of a centered Gaussian: every step of DDIM is linear, x' = gain x + std z."""
    pipeline, seen = TimedPipeline(law, _scheduler("ddim")), []

    class Hook:
        def begin(self, num_steps, noisy):
            pass

        def step(self, call):
            law = step_law(call)
            seen.append((call.sample.double(), law.mean.double(), law.std))

    generators = [torch.Generator().manual_seed(0)]
    with Interception(pipeline, Hook(), generators=generators, eta=1.0, resamples=False):
        pipeline(["a"], num_inference_steps=STEPS, generator=generators)
    variance = 1.0
    for sample, mean, std in seen:
        variance = variance * float((mean / sample).flatten()[0]) ** 2 + std**2
    return variance


def _check(result, z, mean):
    """Z_hat and Z_hat * mean_hat against Z and Z * mean within 4 standard errors over groups."""
    weights = result.log_weights.exp()
    found = result.log_z.exp()
    moments = (weights[..., None] * result.samples.flatten(2).double()).sum(1).mean(1)
    for values, truth in ((found, z), (found * moments, z * mean)):
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - truth) < 4 * error, (float(values.mean()), truth, error)
    assert float(found.std()) / math.sqrt(len(found)) < 0.1 * z  # else it shows nothing


def _gaussian_truth(variance, dim):
    z = (1 + SCALE * variance) ** (-dim / 2) * math.exp(-0.5 * dim * SCALE * CENTER**2 / (1 + SCALE * variance))
    return z, SCALE * CENTER / (1 / variance + SCALE)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("potential", ["difference", "max"])
def test_the_target_stays(look, potential):
    law = GaussianMixture.single([0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law), 1)
    result = _steer(TimedPipeline(law, _scheduler("ddim")), groups=400, particles=6, look_ahead=look,
                    potential=potential, ess_threshold=1.0)  # fmt: skip
    assert result.resampled.any()
    _check(result, z, mean)


def _check_by_base(pipeline, looks, particles):
    """Against many samples of the base: solvers of second order, and mixtures, have no closed form here."""
    base = _steer(pipeline, groups=1, particles=40_000, reward_scale=0.0, potential="terminal", scheduler="stochastic",
                  seed=9)  # fmt: skip
    x = base.samples.flatten().double()
    tilted = (SCALE * _reward(x[:, None])).exp()
    for look in looks:
        found = _steer(pipeline, groups=500, particles=particles, look_ahead=look)
        weights, z = found.log_weights.exp(), found.log_z.exp()
        moments = (weights * found.samples.flatten(1).double()).sum(1)
        for values, truths in ((z, tilted), (z * moments, tilted * x)):
            error = math.hypot(float(values.std()) / math.sqrt(len(values)), float(truths.std()) / math.sqrt(len(x)))
            assert abs(float(values.mean()) - float(truths.mean())) < 4 * error < 0.5 * float(tilted.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "euler", "dpm", "flow"])
def test_schedulers(name):
    pipeline = TimedPipeline(GaussianMixture.single([0.0], 1.0), _scheduler(name))
    _check_by_base(pipeline, [LOOKS["many samples"]], 6)


@pytest.mark.parametrize("changes", [
    {"tempering": Linear(0.2)},
    {"tempering": Adaptive(0.8), "ess_threshold": 0.9},
    {"stop_scoring_above": -1.5},
    {"fewer_particles": FewerParticles(above=-1.5, number=2)},
    {"proposal": GradientProposal(jacobian=False)},
    {"max_batch": 100},
], ids=["linear", "adaptive", "early stop", "fewer particles", "proposal", "micro-batches"])  # fmt: skip
def test_it_goes_with_other_settings(changes):
    law = GaussianMixture.single([0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law), 1)
    result = _steer(TimedPipeline(law, _scheduler("ddim")), groups=400, particles=6, look_ahead=LOOKS["many samples"],
                    **changes)  # fmt: skip
    if "stop_scoring_above" in changes or "fewer_particles" in changes:
        assert not result.scored.all()
    _check(result, z, mean)


@pytest.mark.slow
def test_two_modes_between_which_the_mean_lies():
    """Early the denoised prediction lies between the modes, where nothing is."""
    law = GaussianMixture([[-2.0], [2.0]], [0.3, 0.3], [0.7, 0.3])
    _check_by_base(TimedPipeline(law, _scheduler("ddim")), (LookAhead(), LookAhead(num_samples=4, num_steps=3)), 4)


def _values(steps, *, num_samples, num_steps, eta=1.0, rows=3000, at=None):
    """Look-ahead values of copies of one x_t, with reward 0.8 x and data N(0.5, 2); and what they should be."""
    law, slope, variance, center = GaussianMixture.single([0.5], 2.0), 0.8, 2.0, 0.5
    pipeline = TimedPipeline(law, _scheduler("ddim"), torch.float64)
    pipeline(["a"], num_inference_steps=steps, generator=[torch.Generator()])
    scheduler = pipeline.scheduler
    index = steps // 5 if at is None else at
    timestep = scheduler.timesteps[index]
    scale, sigma, _ = pipeline.unet.levels[float(timestep)]
    x = torch.full((rows, 1, 1, 1), 0.9, dtype=torch.float64)
    output = pipeline.unet(x, timestep)
    call = StepCall(index, steps, timestep, x, output, scheduler,
                    network_calls=(NetworkCall(pipeline.unet, pipeline.unet, (x, timestep), {}, output),))  # fmt: skip

    class Predictions:
        def rows(self, groups):
            return torch.arange(rows)

        def __call__(self, latents, groups, *, where):
            return slope * latents.flatten().double().unsqueeze(0), latents

    scores = LookAheadScores(
        LookAhead(num_samples=num_samples, num_steps=num_steps, eta=eta), pipeline, predictions=Predictions(),
        prompt_indices=[0], particles=ParticleSettings(num_particles=rows), reward_scale=SCALE,
    )  # fmt: skip
    found, _ = scores(call.denoised(), None, call, where="here")
    precision = 1 / variance + scale**2 / sigma**2
    mean = (center / variance + scale * 0.9 / sigma**2) / precision
    return found.flatten(), slope * mean + SCALE * slope**2 / (2 * precision), slope * mean


def test_many_steps_are_the_log_of_the_conditional_mean():
    """`(1 / s) log E[exp(s r(x_0)) | x_t]` of a Gaussian and a linear reward, `a m + s a^2 c / 2`."""
    gaps = []
    for steps in (10, 40, 250):
        values, exact, plain = _values(steps, num_samples=2, num_steps=1000)
        mean = (SCALE * (values - exact)).exp()  # unbiased for 1, as the steps become many
        gaps.append((float(mean.mean()) - 1, 4 * float(mean.std()) / math.sqrt(len(mean))))
    assert exact - plain > 0.5 and gaps[0][0] < -2 * gaps[0][1]  # a grid of ten steps has too little noise
    assert gaps[0][0] < gaps[1][0] < 0 + gaps[1][1]
    assert abs(gaps[2][0]) < gaps[2][1] + 0.06, gaps


def test_many_samples_approach_the_value_from_below():
    """Jensen: the mean over particles rises with the number of draws."""
    means, exact = [], 0.0
    for number in (1, 4, 32):
        values, exact, _ = _values(50, num_samples=number, num_steps=1000, rows=1500)
        means.append(float(values.mean()))
    assert means[0] < means[1] < means[2] < exact + 0.02 and exact - means[2] < 0.3 * (exact - means[0])


def test_few_steps_lie_between_the_plain_score_and_the_value():
    _, exact, plain = _values(50, num_samples=1, num_steps=1)
    found = [float((SCALE * _values(50, num_samples=1, num_steps=n)[0]).exp().mean().log() / SCALE) for n in (1, 2, 6)]
    assert found[0] == pytest.approx(plain, abs=1e-5) and plain < found[1] < found[2] < exact


def test_without_noise_the_law_of_the_mean_is_followed():
    """At eta 0 the rollout is DDIM's: all copies of one x_t end at one place."""
    values, _, _ = _values(50, num_samples=1, num_steps=1000, eta=0.0, rows=5)
    assert float(values.std()) < 1e-6
