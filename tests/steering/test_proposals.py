"""Proposals on real pipeline classes with tiny random networks: the ratio, the gradient, the modes, the refusals."""

import math

import pytest
import torch
from tiny import tiny_stable_diffusion
from tiny_flow import make as make_flow

import fklit
from fklit.pipelines.denoised import denoised
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.network_replay import NetworkReplay
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.step_call import NetworkCall, StepCall
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.rewards.base import RewardError
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.proposal import Proposal
from fklit.steering.run import SteeringRun

STEPS = 5
PROMPTS = ["a red heart", "two cats"]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def brightness(images):
    return 20 * images.mean((1, 2, 3))


def _scheduler(name):
    import diffusers

    return {
        "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False, **BETAS),
        "ddpm": lambda: diffusers.DDPMScheduler(clip_sample=False, **BETAS),
        "euler-ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**BETAS),
        "dpm-sde": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **BETAS),
        "lcm": lambda: diffusers.LCMScheduler(**BETAS),
    }[name]()


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


def _steer(pipeline, prompts=PROMPTS, *, guidance=3.0, eta=None, **changes):
    kwargs = {"num_inference_steps": STEPS, "guidance_scale": guidance, "height": 16, "width": 16}
    if eta is not None:
        kwargs["eta"] = eta
    settings = {
        "reward": brightness, "reward_scale": 2.0, "num_particles": 3, "previews": False, "scheduler": "keep",
        "reward_schedule": fklit.Schedule(indices=(1, 2, 3)), "pipeline_kwargs": kwargs,
    }  # fmt: skip
    return fklit.steer(pipeline, prompts, **settings | changes)


class Recorded(Proposal):
    """A fixed pattern of shifts; remembers the laws it saw."""

    schedule = fklit.Schedule(0, STEPS - 2, 1)

    def __init__(self):
        self.steps, self.shifts = [], []

    def shift(self, step):
        torch.manual_seed(step.index)
        self.steps.append(step)
        self.shifts.append(0.1 * step.std * torch.randn(step.sample.shape))
        return self.shifts[-1]


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler-ancestral", "dpm-sde"])
def test_the_ratio_is_that_of_two_normal_densities(pipeline, name, monkeypatch):
    """Independent: torch's normal log densities of the children, which are the parents of the step after."""
    pipeline.scheduler, proposal, parents = _scheduler(name), Recorded(), []
    plain = SteeringRun.weigh

    def weigh(self, call):
        parents.append(call.sample.clone())
        return plain(self, call)

    monkeypatch.setattr(SteeringRun, "weigh", weigh)
    result = _steer(pipeline, eta=1.0 if name == "ddim" else None, potential="terminal", proposal=proposal)
    assert len(proposal.steps) == STEPS - 1 and len(parents) == STEPS
    ratio = torch.zeros(6, dtype=torch.float64)
    for step, shift, child in zip(proposal.steps, proposal.shifts, parents[1:], strict=True):
        child, mean = child.double(), step.mean.double()
        base, moved = (torch.distributions.Normal(m, step.std).log_prob(child) for m in (mean, mean + shift.double()))
        ratio += (base - moved).sum(dim=(1, 2, 3))
    expected = 2.0 * result.rewards + ratio.reshape(2, 3)
    torch.testing.assert_close(result.log_weights, torch.log_softmax(expected, 1), atol=1e-6, rtol=1e-6)
    log_z = torch.logsumexp(expected, 1) - math.log(3)
    torch.testing.assert_close(result.log_z, log_z, atol=1e-6, rtol=1e-6)
    assert float(ratio.std()) > 0.1


def test_scale_zero_and_no_proposal_are_the_base_bit_for_bit(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    plain = _steer(pipeline, eta=1.0, reward_scale=0.0)
    proposed = _steer(pipeline, eta=1.0, reward_scale=0.0, proposal=GradientProposal())
    assert torch.equal(plain.samples, proposed.samples)
    assert torch.equal(plain.log_weights, proposed.log_weights)
    assert proposed.settings["proposal"].startswith("GradientProposal(") and plain.settings["proposal"] is None


def _step_call(pipeline, *, guidance, scheduler, separate=False):
    """A step as the interception shows it, made by hand, and the function from samples to denoised predictions."""
    scheduler.set_timesteps(4)
    timestep = scheduler.timesteps[1]
    torch.manual_seed(0)
    x, text = torch.randn(3, 4, 8, 8), torch.randn(6, 24, 16)
    scheduler.scale_model_input(x, scheduler.timesteps[0])
    calls = []

    def run(rows, t, states):
        found = pipeline.unet(rows, t, encoder_hidden_states=states).sample
        calls.append(NetworkCall(pipeline.unet, lambda *a, **k: pipeline.unet(*a, **k), (rows, t), {
            "encoder_hidden_states": states}, found))  # fmt: skip
        return found

    def predict(x):
        rows = scheduler.scale_model_input(torch.cat([x, x]), timestep)
        if separate:
            first, second = (
                run(part, timestep, states) for part, states in zip(rows.chunk(2), text.chunk(2), strict=True)
            )
        else:
            first, second = run(rows, timestep, text).chunk(2)
        output = first + guidance * (second - first)
        return output, denoised(scheduler, output, timestep, x)

    with torch.no_grad():
        output = predict(x)[0]
    return StepCall(1, 4, timestep, x, output, scheduler, network_calls=tuple(calls)), predict


@pytest.mark.parametrize("max_batch", [None, 4])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", ["ddim", "euler-ancestral"])
def test_the_gradient_is_that_of_the_guided_prediction(pipeline, name, separate, max_batch):
    call, predict = _step_call(pipeline, guidance=4.0, scheduler=_scheduler(name), separate=separate)
    cotangent = torch.randn(3, 4, 8, 8)
    x = call.sample.clone().requires_grad_()
    (expected,) = torch.autograd.grad(predict(x)[1], x, cotangent)
    replay = NetworkReplay(call, max_batch=max_batch)
    with torch.inference_mode():
        found = replay.pull_back(cotangent)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    assert replay.evaluations == 6


def test_checkpointing_changes_nothing_and_is_switched_off(pipeline):
    call, _ = _step_call(pipeline, guidance=4.0, scheduler=_scheduler("ddim"))
    cotangent = torch.randn(3, 4, 8, 8)
    plain = NetworkReplay(call).pull_back(cotangent)
    torch.testing.assert_close(NetworkReplay(call, checkpoint=True).pull_back(cotangent), plain)
    assert not pipeline.unet.is_gradient_checkpointing


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("jacobian", [True, False])
def test_modes(pipeline, mode, jacobian):
    pipeline.scheduler = _scheduler("ddim")
    proposal = GradientProposal(jacobian=jacobian, max_kl=None)
    expected = _steer(pipeline, eta=1.0, proposal=proposal)
    with mode():
        found = _steer(pipeline, eta=1.0, proposal=proposal)
    assert torch.equal(found.samples, expected.samples)
    assert torch.equal(found.log_weights, expected.log_weights)
    rows = 3 * 2 * 2  # K, prompts, guidance; the last step draws no noise
    again = rows * (STEPS - 1) if jacobian else 0
    assert expected.budget.gradient_calls == again
    assert expected.budget.denoiser_calls == rows * STEPS + again
    assert not any(parameter.grad is not None for parameter in pipeline.unet.parameters())


def test_one_particle(pipeline):
    """Nothing is resampled, yet steps must draw noise: the weight of the one sample is the ratio."""
    pipeline.scheduler = _scheduler("ddim")
    with pytest.warns(SchedulerSwapWarning, match="eta=1"):
        result = _steer(pipeline, num_particles=1, proposal=GradientProposal(), scheduler="auto")
    assert torch.isfinite(result.log_z).all() and float((result.log_z - 2 * result.rewards[:, 0]).abs().min()) > 1e-3


def test_micro_batches_give_the_same(pipeline):
    pipeline.scheduler = _scheduler("ddpm")
    whole = _steer(pipeline, proposal=GradientProposal())
    chunks = _steer(pipeline, proposal=GradientProposal(), max_batch=5)
    torch.testing.assert_close(chunks.samples, whole.samples, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(chunks.log_weights, whole.log_weights, atol=1e-3, rtol=1e-3)


def test_half_precision():
    pipeline = tiny_stable_diffusion().to(torch.bfloat16)
    pipeline.scheduler = _scheduler("ddim")
    result = _steer(pipeline, eta=1.0, proposal=GradientProposal())
    assert result.log_weights.dtype == torch.float64
    assert torch.isfinite(result.log_weights).all() and torch.isfinite(result.log_z).all()


def test_a_gradient_raises_the_reward(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    base = _steer(pipeline, PROMPTS * 4, eta=1.0, potential="terminal", reward_scale=5.0)
    twisted = _steer(pipeline, PROMPTS * 4, eta=1.0, potential="terminal", reward_scale=5.0,
                     proposal=GradientProposal())  # fmt: skip
    assert float(twisted.rewards.mean()) > float(base.rewards.mean())
    assert float(twisted.ess[-1].mean()) > 1


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_flow_pipelines(name):
    """SD3 decodes directly and is guided; Flux packs its latents, which only its own call decodes."""
    pipeline, kwargs = make_flow(name)
    kwargs = {**kwargs, "num_inference_steps": STEPS}
    for jacobian in (True, False):
        with pytest.warns(SchedulerSwapWarning):
            result = fklit.steer(
                pipeline, "a red heart", reward=brightness, reward_scale=1.0, num_particles=2, previews=False,
                reward_schedule=fklit.Schedule(indices=(1, 2)), pipeline_kwargs=kwargs,
                proposal=GradientProposal(jacobian=jacobian),
            )  # fmt: skip
        assert torch.isfinite(result.log_z).all()
        assert (result.budget.gradient_calls > 0) == jacobian


def test_what_cannot_be_is_refused_in_one_line(pipeline):
    pipeline.scheduler = _scheduler("ddim")
    with pytest.raises(DeterministicSamplerError, match=r"no density.*eta=1"):
        _steer(pipeline, eta=0.0, proposal=GradientProposal(), potential="terminal")
    with pytest.raises(RewardError, match=r"differentiable in its samples.*proposal=None"):
        _steer(pipeline, eta=1.0, proposal=GradientProposal(), reward=lambda x: x.detach().mean((1, 2, 3)))
    rescaled = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "guidance_rescale": 0.7, "eta": 1.0}
    with pytest.raises(UnsupportedPipelineError, match=r"linear combination.*jacobian=False"):
        _steer(pipeline, proposal=GradientProposal(), pipeline_kwargs=rescaled)
    result = _steer(pipeline, proposal=GradientProposal(jacobian=False), pipeline_kwargs=rescaled)
    assert torch.isfinite(result.log_weights).all()
    pipeline.scheduler = _scheduler("lcm")
    with pytest.raises(UnsupportedPipelineError, match="known density, got LCMScheduler"):
        _steer(pipeline, proposal=GradientProposal(), guidance=1.0)


class Broken(Proposal):
    def __init__(self, make):
        self.make = make

    def shift(self, step):
        return self.make(step.sample)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda x: x[:, 0], "expected a shift"), (lambda x: x / 0, "finite shift"), (lambda x: None, "got NoneType")],
)
def test_a_broken_proposal_is_named(pipeline, make, message):
    pipeline.scheduler = _scheduler("ddim")
    with pytest.raises(ValueError, match=message + ".*Broken|" + message):
        _steer(pipeline, eta=1.0, proposal=Broken(make))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strength": 0}, "strength above 0"), ({"max_kl": -1.0}, "max_kl above 0"),
     ({"jacobian": False, "checkpoint": True}, "omit checkpoint"), ({"data_std": 2.0}, "omit data_std"),
     ({"strength": math.inf}, "strength above 0")],
)  # fmt: skip
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        GradientProposal(**options)


def test_settings_take_proposals_only():
    with pytest.raises(TypeError, match="expected a Proposal, got a str"):
        _steer(None, proposal="gradient")
