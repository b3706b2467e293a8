"""The noise levels between which a diffusers scheduler is about to step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fklit.pipelines.denoised import UnknownSchedulerError


@dataclass(frozen=True)
class StepLevels:
    """Levels of `x = scale x_0 + sigma e` before and after a step.

    Attributes:
        scale: before the step.
        sigma: before the step, positive.
        next_scale: after the step, positive.
        next_sigma: after the step.
    """

    scale: float
    sigma: float
    next_scale: float
    next_sigma: float


def step_levels(scheduler: Any, timestep: Any) -> StepLevels:
    """Return the levels before and after the step that a scheduler is about to take.

    Args:
        scheduler: a diffusers scheduler, not yet stepped at this timestep; it is not changed.
        timestep: the timestep it is about to be stepped with.

    Raises:
        UnknownSchedulerError: if the levels of this scheduler are not known.
    """
    for base in type(scheduler).__mro__:
        if base.__name__ in _KINDS:
            return _KINDS[base.__name__](scheduler, timestep)
    raise UnknownSchedulerError(
        f"expected a scheduler whose noise levels are known, got {type(scheduler).__name__}; use one of "
        f"{', '.join(_KINDS)}."
    )


def _ddim(scheduler: Any, timestep: Any) -> StepLevels:
    before = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    after = scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
    return _cumulative(float(scheduler.alphas_cumprod[int(timestep)]), float(after))


def _ddpm(scheduler: Any, timestep: Any) -> StepLevels:
    before = int(scheduler.previous_timestep(int(timestep)))
    after = float(scheduler.alphas_cumprod[before]) if before >= 0 else 1.0
    return _cumulative(float(scheduler.alphas_cumprod[int(timestep)]), after)


def _cumulative(now: float, after: float) -> StepLevels:
    return StepLevels(math.sqrt(now), math.sqrt(1 - now), math.sqrt(after), math.sqrt(max(1 - after, 0.0)))


def _sigma(scheduler: Any, timestep: Any) -> StepLevels:
    index = _index(scheduler, timestep)
    return StepLevels(1.0, float(scheduler.sigmas[index]), 1.0, float(scheduler.sigmas[index + 1]))


def _alpha_sigma(scheduler: Any, timestep: Any) -> StepLevels:
    index = _index(scheduler, timestep)
    levels = [scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[i]) for i in (index, index + 1)]
    (scale, sigma), (next_scale, next_sigma) = levels
    return StepLevels(float(scale), float(sigma), float(next_scale), float(next_sigma))


def _flow(scheduler: Any, timestep: Any) -> StepLevels:
    index = _index(scheduler, timestep)
    now, after = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
    return StepLevels(1 - now, now, 1 - after, after)


def _index(scheduler: Any, timestep: Any) -> int:
    """The scheduler's position; None until its first step."""
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))


_KINDS: dict[str, Callable[[Any, Any], StepLevels]] = {
    **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler"), _ddim),
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler"), _ddpm),
    **dict.fromkeys(("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"), _sigma),
    **dict.fromkeys(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"), _sigma
    ),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "SASolverScheduler", "UniPCMultistepScheduler"), _alpha_sigma),
    "FlowMatchEulerDiscreteScheduler": _flow,
}
