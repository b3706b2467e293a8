"""Proposals where the answer is known: exact denoisers behind real schedulers, many groups of few particles.

Each group's `Z_hat` is unbiased for Z whatever the proposal, potential and tempering, and `Z_hat * mean` is unbiased
for `E_base[x exp(scale r)]`; a ratio with a wrong sign, factor, step or ancestor shows at once.
"""

import math
import warnings

import pytest
import torch

import fklit
from fklit.analytic import GaussianMixture, MixturePipeline
from fklit.feynman_kac import Adaptive, Constant, Linear
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.step_law import step_law
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.proposal import Proposal

CENTER, SCALE, STEPS = 1.5, 2.0, 10


class Outward(Proposal):
    """A poor proposal: it pushes away from the reward, a different way at each step."""

    def shift(self, step):
        return (-1) ** step.index * 0.3 * step.std * torch.ones_like(step.sample)


PROPOSALS = {
    "none": None,
    "jacobian": GradientProposal(),
    "without jacobian": GradientProposal(jacobian=False),
    "clipped": GradientProposal(strength=4.0, max_kl=0.02),
    "some steps": GradientProposal(schedule=fklit.Schedule(2, 8, 2)),
    "poor": Outward(),
}
TEMPERINGS = {"constant": Constant(), "linear": Linear(0.2), "adaptive": Adaptive(0.8)}


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


def _pipeline(law, name="ddim"):
    return MixturePipeline({"a": law}, law, _scheduler(name))


def _steer(pipeline, *, groups, particles, seed=0, eta=1.0, **changes):
    settings = {
        "reward": _reward, "reward_scale": SCALE, "num_particles": particles, "seed": seed, "decode": lambda x: x,
        "previews": False, "reward_schedule": fklit.Schedule(0, STEPS - 1, 1),
        "pipeline_kwargs": {"guidance_scale": 1.0, "num_inference_steps": STEPS, "eta": eta},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, ["a"] * groups, **settings | changes)


def _base_variance(law, name):
    """Of the base sampler's samples of a centered Gaussian: every step is linear, x' = gain x + std z."""
    scheduler = _scheduler(name)
    scheduler.set_timesteps(STEPS)
    pipeline = MixturePipeline({"a": law}, law, scheduler)
    seen = []

    class Hook:
        def begin(self, num_steps, noisy):
            pass

        def step(self, call):
            law = step_law(call)
            seen.append((call.sample.double(), law.mean.double(), law.std))

    from fklit.pipelines.interception import Interception

    generators = [torch.Generator().manual_seed(0)]
    kernel = get_flow_kernel() if name == "flow" else None
    with Interception(pipeline, Hook(), generators=generators, kernel=kernel, eta=1.0, resamples=False):
        pipeline(["a"], guidance_scale=1.0, num_inference_steps=STEPS, generator=generators)
    variance = float(getattr(scheduler, "init_noise_sigma", 1.0)) ** 2
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
    assert float(found.std()) / math.sqrt(len(found)) < 0.15 * z  # else it shows nothing


def _gaussian_truth(variance, dim):
    z = (1 + SCALE * variance) ** (-dim / 2) * math.exp(-0.5 * dim * SCALE * CENTER**2 / (1 + SCALE * variance))
    return z, SCALE * CENTER / (1 / variance + SCALE)


@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize("potential", ["difference", "max", "terminal"])
def test_gaussian(proposal, potential):
    law = GaussianMixture.single([0.0, 0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law, "ddim"), 2)
    result = _steer(_pipeline(law), groups=250, particles=6, proposal=PROPOSALS[proposal], potential=potential)
    _check(result, z, mean)


@pytest.mark.parametrize("tempering", ["linear", "adaptive"])
@pytest.mark.parametrize("proposal", ["jacobian", "poor"])
def test_tempering(proposal, tempering):
    law = GaussianMixture.single([0.0, 0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law, "ddim"), 2)
    result = _steer(_pipeline(law), groups=250, particles=6, proposal=PROPOSALS[proposal], ess_threshold=0.9,
                    tempering=TEMPERINGS[tempering])  # fmt: skip
    assert result.resampled.any()
    _check(result, z, mean)


@pytest.mark.parametrize("name", ["ddpm", "euler", "flow"])
def test_schedulers(name):
    law = GaussianMixture.single([0.0, 0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law, name), 2)
    for proposal in ("without jacobian", "poor"):
        result = _steer(_pipeline(law, name), groups=250, particles=6, ess_threshold=0.9, eta=0.0,
                        proposal=PROPOSALS[proposal])  # fmt: skip
        _check(result, z, mean)


def _mixture():
    return GaussianMixture([[-1.5, 0.0], [1.0, 1.0]], [0.2, 0.5], [0.7, 0.3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "dpm"])
def test_mixture(name):
    """The base's own samples, many of them, give Z and the mean: a second-order solver has no closed form here."""
    pipeline = _pipeline(_mixture(), name)
    base = _steer(pipeline, groups=1, particles=60_000, reward_scale=0.0, scheduler="stochastic").samples[0]
    weights = (SCALE * _reward(base).double()).exp()
    z, mean = float(weights.mean()), float((weights * base.flatten(1).mean(1)).mean() / weights.mean())
    result = _steer(pipeline, groups=500, particles=8, ess_threshold=0.9, proposal=GradientProposal(strength=0.5))
    _check(result, z, mean)


CELLS = [
    (potential, tempering)
    for potential in ("difference", "max", "sum", "rt", "terminal")
    for tempering in TEMPERINGS
    if potential != "terminal" or tempering == "constant"  # without intermediate scores there is nothing to temper
]


@pytest.mark.slow
@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize(("potential", "tempering"), CELLS)
@pytest.mark.parametrize(("groups", "particles"), [(1600, 3), (400, 16)])
def test_every_cell(proposal, potential, tempering, groups, particles):
    law = GaussianMixture.single([0.0, 0.0], 1.0)
    z, mean = _gaussian_truth(_base_variance(law, "ddim"), 2)
    # More scores overshoot so far in these potentials that the mean of Z_hat rests on a few groups.
    few = fklit.Schedule(indices=(4, 7, 9)) if potential in ("sum", "rt") else fklit.Schedule(0, STEPS - 1, 1)
    result = _steer(_pipeline(law), groups=groups, particles=particles, proposal=PROPOSALS[proposal], seed=3,
                    potential=potential, tempering=TEMPERINGS[tempering], ess_threshold=0.8,
                    reward_schedule=few)  # fmt: skip
    weights, found = result.log_weights.exp(), result.log_z.exp()
    moments = (weights[..., None] * result.samples.flatten(2).double()).sum(1).mean(1)
    for values, truth in ((found, z), (found * moments, z * mean)):
        assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / math.sqrt(groups)


def test_variance_of_log_z():
    """At equal calls (a gradient counted as two more evaluations: four in all) at most a third of the base's."""
    pipeline = _pipeline(GaussianMixture.single([0.0, 0.0], 1.0))
    base = _steer(pipeline, groups=300, particles=32)
    twisted = _steer(pipeline, groups=300, particles=8, proposal=GradientProposal())
    cheap = _steer(pipeline, groups=300, particles=8, proposal=GradientProposal(jacobian=False))
    spent = twisted.budget.denoiser_calls + 2 * twisted.budget.gradient_calls
    assert spent <= base.budget.denoiser_calls
    assert float(twisted.log_z.var()) < float(base.log_z.var()) / 3
    assert float(cheap.log_z.var()) < float(base.log_z.var()) / 3  # at a quarter of the calls
    assert cheap.budget.gradient_calls == 0


@pytest.mark.parametrize("jacobian", [True, False])
def test_optimal_shift_of_a_gaussian(jacobian):
    """With unit variance `x0_hat = a x`, so both variants shift by std^2 * scale * a (center - a x)."""
    pipeline, seen = _pipeline(GaussianMixture.single([0.0], 1.0)), []

    class Watched(GradientProposal):
        def shift(self, step):
            found = super().shift(step)
            seen.append((step, found))
            return found

    _steer(pipeline, groups=3, particles=2, proposal=Watched(jacobian=jacobian, max_kl=None))
    assert len(seen) >= STEPS - 1
    for step, found in seen:
        expected = step.std**2 * SCALE * step.scale * (CENTER - step.scale * step.sample)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_law_of_a_step_call_does_not_move_the_scheduler():
    scheduler = _scheduler("flow")
    scheduler.set_timesteps(4)
    with stochastic_steps(scheduler, get_flow_kernel()):
        step_law(StepCall(0, 4, scheduler.timesteps[0], torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), scheduler))
        assert scheduler.step_index is None
