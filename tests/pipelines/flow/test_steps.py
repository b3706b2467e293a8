"""A kernel in the place of a scheduler's step: the grid stays, the probe sees it, and nothing is left behind."""

import itertools
import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import UnsupportedFlowError, stochastic_steps
from fklit.pipelines.sampler import choose_sampler
from fklit.pipelines.stochasticity import noisy_calls

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SHIFT = {"use_dynamic_shifting": True}


def make(name):
    import diffusers

    kind, _, option = name.partition(":")
    if kind != "FlowMatchEulerDiscreteScheduler":
        return getattr(diffusers, kind)(**FLOW)
    given = {"": {"shift": 3.0}, "dynamic": SHIFT, "terminal": {**SHIFT, "shift_terminal": 0.1}, "karras": {
        "use_karras_sigmas": True}}[option]  # fmt: skip
    return getattr(diffusers, kind)(**given)


def set_steps(scheduler, steps):
    if scheduler.config.get("use_dynamic_shifting", False):
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), mu=1.15)
    else:
        scheduler.set_timesteps(steps)


NAMES = (
    "FlowMatchEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler:dynamic",
    "FlowMatchEulerDiscreteScheduler:terminal", "FlowMatchEulerDiscreteScheduler:karras", "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)  # fmt: skip


def run(scheduler, steps, x, generator=None, seed=None):
    for t in scheduler.timesteps:
        given = {} if generator is None else {"generator": generator}
        x = scheduler.step(torch.tanh(x), t, x, return_dict=False, **given)[0]
    return x


@pytest.mark.parametrize("name", NAMES)
def test_steps_follow_the_kernel_on_the_schedulers_own_grid(name):
    scheduler, kernel = make(name), get_flow_kernel()
    set_steps(scheduler, 6)
    own, grid, step = type(scheduler), scheduler.sigmas.clone(), scheduler.step
    start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with stochastic_steps(scheduler, kernel):
        assert isinstance(scheduler, own) and type(scheduler).__name__ == own.__name__
        found = run(scheduler, 6, start, generator=torch.Generator().manual_seed(1))
        assert torch.equal(scheduler.sigmas, grid)
    assert type(scheduler) is own and scheduler.step == step and "_fklit_previous_denoised" not in vars(scheduler)
    x, previous, before, generator = start, None, None, torch.Generator().manual_seed(1)
    for sigma, after in itertools.pairwise(grid.tolist()):
        x0 = x - sigma * torch.tanh(x)
        law = kernel.transition(x, x0, sigma, after, previous=previous, previous_sigma=before)
        x = law.mean if law.std == 0 else law.mean + law.std * torch.randn(x.shape, generator=generator)
        previous, before = x0, sigma
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_probe_for_noise_sees_the_kernel(name):
    scheduler = make(name)
    set_steps(scheduler, 5)
    sample = torch.randn(1, 3, 4, 4)
    arguments = {"model_output": torch.randn_like(sample), "sample": sample}

    def ask():
        return list(noisy_calls(scheduler, arguments, list(scheduler.timesteps), range(5)).values())

    assert ask() == [False] * 5
    with stochastic_steps(scheduler, get_flow_kernel("sde")):
        assert ask() == [True] * 4 + [False]


@pytest.mark.parametrize("name", NAMES)
def test_noise_level_0_is_the_schedulers_own_step_bit_for_bit(name):
    scheduler = make(name)
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    results = []
    for kernel in (None, get_flow_kernel("sde", 0.0)):
        set_steps(scheduler, 6)
        torch.manual_seed(0)
        if kernel is None:
            results.append(run(scheduler, 6, start))
        else:
            with stochastic_steps(scheduler, kernel):
                results.append(run(scheduler, 6, start))
    assert torch.equal(*results)


def test_a_second_run_has_no_history_of_the_first():
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    start, results = torch.randn(2, 3), []
    with stochastic_steps(scheduler, get_flow_kernel()):
        for _ in range(2):
            set_steps(scheduler, 4)
            results.append(run(scheduler, 4, start, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(*results)


def test_noise_comes_from_the_given_generators_where_none_is_sent():
    scheduler, results = make("FlowMatchEulerDiscreteScheduler"), []
    start = torch.randn(3, 2)
    for sent in (True, False):
        sources = [torch.Generator().manual_seed(i) for i in range(3)]
        set_steps(scheduler, 4)
        with stochastic_steps(scheduler, get_flow_kernel("cps"), None if sent else sources):
            results.append(run(scheduler, 4, start, generator=sources if sent else None))
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_steps_are_taken_in_float32_and_returned_as_the_schedulers_own(dtype):
    start = torch.randn(2, 3, 4, 4).to(dtype)
    for name in ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"):
        scheduler = make(name)
        set_steps(scheduler, 4)
        t, wide = scheduler.timesteps[0], start.float()
        plain = scheduler.step(torch.tanh(start), t, wide, return_dict=False)[0]
        set_steps(scheduler, 4)
        with stochastic_steps(scheduler, get_flow_kernel()):
            found = scheduler.step(torch.tanh(start), t, wide, return_dict=False)[0]
        assert found.dtype == plain.dtype, name


def test_steps_of_single_tokens_are_refused():
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    set_steps(scheduler, 4)
    sample = torch.randn(2, 5, 3)
    with (
        stochastic_steps(scheduler, get_flow_kernel()),
        pytest.raises(UnsupportedFlowError, match=r"got per_token_timesteps, .*best-of-n"),
    ):
        scheduler.step(sample, scheduler.timesteps[0], sample, per_token_timesteps=torch.ones(2, 5))
    assert "Flow" in type(scheduler).__name__ and math.isfinite(float(scheduler.sigmas[0]))


@pytest.mark.parametrize(
    ("scheduler", "choice", "given", "message"),
    [
        (DDIMScheduler, "auto", {"noise_level": 0.5}, r"noise_level=0\.5 expected .* got DDIMScheduler, .*eta"),
        (DDIMScheduler, "auto", {"noise_level": 0.0}, r"noise_level=0 expected a scheduler of flow matching"),
        (DDIMScheduler, "keep", {"flow_kernel": "sde"}, r"flow_kernel='sde' expected .* got DDIMScheduler"),
        (FlowMatchEulerDiscreteScheduler, "keep", {"noise_level": 0.5}, r"got scheduler='keep'.*set scheduler='auto'"),
        (FlowMatchEulerDiscreteScheduler, "keep", {"flow_kernel": "cps"}, r"got scheduler='keep'"),
    ],
)
def test_a_kernel_that_would_do_nothing_is_refused(scheduler, choice, given, message):
    pipeline = type("Pipeline", (), {"scheduler": scheduler()})()
    with pytest.raises(ValueError, match=message):
        choose_sampler(pipeline, choice, eta=None, resamples=True, **given)
    assert choose_sampler(pipeline, choice, eta=None, resamples=False, **given).kernel is None
