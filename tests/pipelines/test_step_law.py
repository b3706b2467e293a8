"""The law of a step against the step itself: what the scheduler draws is mean + std * the noise its generator gives."""

import math

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from schedulers import make

from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.step_law import UnknownStepLawError, has_step_law, step_law

KNOWN = [
    "DDIMScheduler", "DDIMScheduler:v", "DDIMParallelScheduler", "DDPMScheduler", "DDPMScheduler:v",
    "DDPMParallelScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler:sde",
    "DPMSolverMultistepScheduler:sde3", "EDMDPMSolverMultistepScheduler:sde",
]  # fmt: skip


def _walk(scheduler, *, eta=None, steps=6, dtype=torch.float32):
    """Yields the law, what the scheduler then makes, and the noise it drew."""
    scheduler.set_timesteps(steps)
    x = torch.randn(3, 4, 5, 5).to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for index, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, timestep)
        output = torch.randn(3, 4, 5, 5).to(dtype)
        options = {} if eta is None else {"eta": eta}
        law = step_law(StepCall(index, steps, timestep, x, output, scheduler, arguments=options))
        history = repr(vars(scheduler).get("model_outputs"))
        step_law(StepCall(index, steps, timestep, x, output, scheduler, arguments=options))
        assert repr(vars(scheduler).get("model_outputs")) == history  # it is not stepped
        solver = "Multistep" in type(scheduler).__name__ and "EDM" not in type(scheduler).__name__
        drawn = torch.float32 if solver or "FlowMatch" in type(scheduler).__name__ else dtype
        noise = randn_tensor(output.shape, generator=torch.Generator().manual_seed(index), dtype=drawn)
        generator = torch.Generator().manual_seed(index)
        x = scheduler.step(output, timestep, x, generator=generator, return_dict=False, **options)[0]
        yield law, x, noise


@pytest.mark.parametrize("name", KNOWN)
def test_the_law_is_that_of_the_step(name):
    drawn = 0
    for law, children, noise in _walk(make(name), eta=0.8 if "DDIM" in name else None):
        expected = law.mean.double() + law.std * noise.double()
        torch.testing.assert_close(children.double(), expected, atol=2e-5, rtol=2e-5)
        if law.std > 1e-6:
            drawn += 1
            # Independent: the normal density of torch, summed over pixels.
            density = torch.distributions.Normal(law.mean.double(), law.std).log_prob(children.double())
            torch.testing.assert_close(law.log_density(children), density.sum(dim=(1, 2, 3)), atol=1e-8, rtol=1e-10)
    assert drawn >= 3


@pytest.mark.parametrize("kernel", ["capped_dpmsolver++", "sde", "dance", "cps", "precise"])
def test_flow_kernels(kernel):
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    assert not has_step_law(scheduler)
    with stochastic_steps(scheduler, get_flow_kernel(kernel)):
        assert has_step_law(scheduler)
        laws = []
        for law, children, noise in _walk(scheduler):
            torch.testing.assert_close(children, law.mean + law.std * noise, atol=1e-4, rtol=1e-4)
            laws.append(law.std)
    assert min(laws[:-1]) > 0 and laws[-1] == 0


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler",
                                  "DPMSolverMultistepScheduler:sde"])  # fmt: skip
def test_half_precision(name):
    for law, children, noise in _walk(make(name), eta=1.0 if "DDIM" in name else None, dtype=torch.bfloat16):
        expected = law.mean.double() + law.std * noise.double()
        error = (children.double() - expected).abs().max() / expected.abs().max()
        assert float(error) < 0.02


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_variances_of_ddpm(variance):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(variance_type=variance, clip_sample=True)
    for law, children, noise in _walk(scheduler):
        torch.testing.assert_close(children, law.mean + law.std * noise, atol=2e-5, rtol=2e-5)


def test_closed_form_of_ddim():
    """Song et al. 2021, equation 16: sigma = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')."""
    scheduler = make("DDIMScheduler")
    scheduler.set_timesteps(6)
    now, after = (float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps[2:4])
    sample, output = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    law = step_law(StepCall(2, 6, scheduler.timesteps[2], sample, output, scheduler, arguments={"eta": 0.7}))
    std = 0.7 * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
    assert law.std == pytest.approx(std, rel=1e-5)
    x0 = (sample - math.sqrt(1 - now) * output) / math.sqrt(now)
    torch.testing.assert_close(law.mean, math.sqrt(after) * x0 + math.sqrt(1 - after - std**2) * output)


@pytest.mark.parametrize("name", ["LCMScheduler", "SASolverScheduler", "KDPM2AncestralDiscreteScheduler"])
def test_unknown_laws_are_refused_by_name(name):
    scheduler = make(name)
    assert not has_step_law(scheduler)
    with pytest.raises(UnknownStepLawError, match=f"got {name}"):
        step_law(StepCall(0, 4, 999, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), scheduler))


def test_a_learned_variance_is_refused():
    from diffusers import DDPMScheduler

    assert not has_step_law(DDPMScheduler(variance_type="learned_range"))
