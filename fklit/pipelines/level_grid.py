"""The noise levels that lie ahead of a step on its scheduler's own grid, where the denoiser can be asked again."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.denoised import UnknownSchedulerError, denoised
from fklit.pipelines.families import family_name
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.step_call import StepCall

_UNIT_VARIANCE = frozenset({"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"})


@dataclass(frozen=True)
class GridLevel:
    """One noise level of a scheduler's grid, of `x = scale x_0 + sigma e`.

    Attributes:
        timestep: of the grid, as the scheduler has it.
        scale: of the signal.
        sigma: of the noise.
        input_scale: by which samples are multiplied for the denoiser.
        scheduler: a copy of the scheduler that stands there; it is not to be stepped.
    """

    timestep: Any
    scale: float
    sigma: float
    input_scale: float
    scheduler: Any

    def denoised(self, model_output: Tensor, sample: Tensor) -> Tensor:
        """Return the denoised prediction of samples (N, C, ...) at this level, as `fklit.pipelines.denoised` does."""
        return denoised(self.scheduler, model_output, self.timestep, sample)


def levels_ahead(call: StepCall, number: int, *, otherwise: str) -> list[GridLevel]:
    """Return levels from that of a step on, evenly spread over the steps that are left; the first is the step's own.

    Args:
        call: the step, not yet taken; its scheduler is not changed.
        number: levels wanted, at least 1; fewer come back where the grid has no more.
        otherwise: what the user can do where this cannot be done, for messages.

    Raises:
        UnsupportedPipelineError: the levels of the scheduler are not known (solvers that evaluate the denoiser twice a
            step among them), its model is a consistency model, or the step does not stand on its grid.
    """
    scheduler, name = call.scheduler, type(call.scheduler).__name__
    fix = f"use DDIM, DDPM, Euler ancestral, DPM-Solver++ (SDE) or a flow-matching scheduler, or {otherwise}."
    if family_name(scheduler) == "consistency":
        raise UnsupportedPipelineError(
            f"expected a denoiser that predicts the mean of x_0, got one that {name} samples by consistency, whose "
            f"predictions are no such means; {fix}"
        )
    if call.arguments.get("per_token_timesteps") is not None:
        raise UnsupportedPipelineError(f"expected one noise level a step, got per_token_timesteps; {fix}")
    timesteps = list(scheduler.timesteps)
    place = len(timesteps) - call.num_steps + call.index
    known = getattr(scheduler, "step_index", None)
    if known not in (None, place) or float(timesteps[place]) != _number(call.timestep):
        raise UnsupportedPipelineError(
            f"expected step {call.index} of {call.num_steps} at timestep {float(timesteps[place]):g} of the grid of "
            f"{name}, got {_number(call.timestep):g}; {fix}"
        )
    left = call.num_steps - call.index
    count = min(number, left)
    return [_level(scheduler, timesteps, place + (j * left) // count, fix) for j in range(count)]


def _level(scheduler: Any, timesteps: list[Any], place: int, fix: str) -> GridLevel:
    twin, timestep = copy.copy(scheduler), timesteps[place]
    twin.__dict__.pop("step", None)  # an interception lives there, bound to the original
    if hasattr(twin, "_step_index"):
        twin._step_index = place
    try:
        found = step_levels(twin, timestep)
    except UnknownSchedulerError as error:
        raise UnsupportedPipelineError(
            f"expected a scheduler whose noise levels are known, got {type(scheduler).__name__}; {fix}"
        ) from error
    return GridLevel(timestep, found.scale, found.sigma, _input_scale(twin, found.sigma), twin)


def _input_scale(scheduler: Any, sigma: float) -> float:
    """What `scale_model_input` multiplies by."""
    if hasattr(scheduler, "precondition_inputs"):  # EDM
        return float(scheduler.precondition_inputs(torch.ones((), dtype=torch.float64), sigma))
    if any(base.__name__ in _UNIT_VARIANCE for base in type(scheduler).__mro__):
        return 1 / math.sqrt(sigma**2 + 1)
    return 1.0


def _number(timestep: Any) -> float:
    return float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
