"""Levels that lie ahead of a step, against the scheduler that gets there."""

import contextlib

import pytest
import torch
from schedulers import make

from fklit.pipelines.denoised import denoised
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.level_grid import levels_ahead
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.step_call import StepCall

STEPS = 7
KNOWN = [
    "DDIMScheduler", "DDIMScheduler:v", "DDIMScheduler:x0", "DDIMParallelScheduler", "DDPMScheduler", "DDPMScheduler:v",
    "EulerDiscreteScheduler", "EulerDiscreteScheduler:v", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler:sde", "DPMSolverMultistepScheduler:ode-v",
    "UniPCMultistepScheduler", "SASolverScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler:stochastic",
]  # fmt: skip


def _walk(scheduler, visit):
    """Step with random outputs; `visit` sees each step before it is taken."""
    scheduler.set_timesteps(STEPS)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 5, 5, generator=draw)
    for index, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(x, timestep)
        else:
            scaled = x
        output = torch.randn(2, 4, 5, 5, generator=draw)
        visit(StepCall(index, STEPS, timestep, x, output, scheduler), scaled)
        x = scheduler.step(output, timestep, x, return_dict=False)[0]


@pytest.mark.parametrize("name", [*KNOWN, "kernel"])
def test_every_level_is_where_the_scheduler_will_stand(name):
    scheduler = make("FlowMatchEulerDiscreteScheduler" if name == "kernel" else name)
    ahead = {}

    def visit(call, scaled):
        before = repr(vars(call.scheduler))
        ahead[call.index] = levels_ahead(call, 100, otherwise="stop")
        assert repr(vars(call.scheduler)) == before  # it is not changed
        assert len(ahead[call.index]) == STEPS - call.index
        truth = step_levels(call.scheduler, call.timestep)
        for index in range(call.index + 1):
            level = ahead[index][call.index - index]
            assert float(level.timestep) == float(call.timestep)
            assert (level.scale, level.sigma) == (truth.scale, truth.sigma)
            x0 = denoised(call.scheduler, call.model_output, call.timestep, call.sample)
            assert torch.equal(level.denoised(call.model_output, call.sample), x0)
            torch.testing.assert_close(level.input_scale * call.sample, scaled, atol=1e-6, rtol=1e-5)

    with stochastic_steps(scheduler, get_flow_kernel()) if name == "kernel" else contextlib.nullcontext():
        _walk(scheduler, visit)
    assert sorted(ahead) == list(range(STEPS))


def test_levels_are_evenly_spread_over_what_is_left():
    def visit(call, scaled):
        if call.index != 1:
            return
        grid = [float(t) for t in call.scheduler.timesteps]
        for number, places in ((1, [1]), (2, [1, 4]), (3, [1, 3, 5]), (6, [1, 2, 3, 4, 5, 6])):
            found = [float(level.timestep) for level in levels_ahead(call, number, otherwise="stop")]
            assert found == [grid[place] for place in places]

    _walk(make("DDIMScheduler"), visit)


def test_a_run_that_begins_in_the_middle_of_its_grid():
    scheduler = make("EulerAncestralDiscreteScheduler")
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(3)
    x = torch.zeros(1, 4, 2, 2)
    call = StepCall(0, STEPS - 3, scheduler.timesteps[3], x, x, scheduler)
    found = levels_ahead(call, 100, otherwise="stop")
    assert [float(level.timestep) for level in found] == [float(t) for t in scheduler.timesteps[3:]]
    assert [level.sigma for level in found] == [float(s) for s in scheduler.sigmas[3:-1]]


@pytest.mark.parametrize(
    "name",
    [
        *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler", "LMSDiscreteScheduler"),
        "DPMSolverSinglestepScheduler",
    ],
)
def test_solvers_whose_steps_are_no_single_levels_are_refused(name):
    scheduler = make(name)
    scheduler.set_timesteps(STEPS)
    x, count = torch.zeros(1, 4, 2, 2), len(scheduler.timesteps)
    call = StepCall(0, count, scheduler.timesteps[0], x, x, scheduler)
    with pytest.raises(UnsupportedPipelineError, match=f"whose noise levels are known, got {name}; use DDIM.*or stop"):
        levels_ahead(call, 3, otherwise="stop")


def test_what_does_not_stand_on_the_grid_is_refused():
    scheduler = make("DDIMScheduler")
    scheduler.set_timesteps(STEPS)
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(UnsupportedPipelineError, match=r"expected step 2 of 7 at timestep 568 of the grid .* got 500"):
        levels_ahead(StepCall(2, STEPS, 500, x, x, scheduler), 2, otherwise="stop")
    flow = make("FlowMatchEulerDiscreteScheduler")
    flow.set_timesteps(STEPS)
    call = StepCall(0, STEPS, flow.timesteps[0], x, x, flow, arguments={"per_token_timesteps": x})
    with pytest.raises(UnsupportedPipelineError, match="expected one noise level a step, got per_token_timesteps"):
        levels_ahead(call, 2, otherwise="stop")
