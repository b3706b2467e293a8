"""The law of the step that a scheduler is about to take: its mean and the standard deviation of its noise.

Proposals shift the mean and need the density of both laws. Where the scheduler can be asked, it is: a copy of it steps
the same sample with the noise taken out, in the same precision, so that multi-step histories, clipping and options are
its own. What stands in no row below has no density that fklit knows, and is refused.
"""

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.flow.steps import kernel_transition, takes_kernel_steps
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.transition import Transition

_DRAWN_TYPES = ("fixed_small", "fixed_small_log", "fixed_large")
_UPDATES = (
    "dpm_solver_first_order_update",
    "multistep_dpm_solver_second_order_update",
    "multistep_dpm_solver_third_order_update",
)


class UnknownStepLawError(ValueError):
    """The step of this scheduler has no density that fklit knows."""


def has_step_law(scheduler: Any) -> bool:
    """Return whether `step_law` knows the law of this scheduler's steps."""
    return _law_of(scheduler) is not None


def step_law(call: StepCall) -> Transition:
    """Return the law of the next samples of a step, before it is taken.

    Args:
        call: the step; its scheduler is not changed.

    Returns:
        Mean (N, C, ...) as the scheduler computes it without noise, and the standard deviation of the noise, 0 where
        it draws none.

    Raises:
        UnknownStepLawError: for a scheduler without a known law.
    """
    found = _law_of(call.scheduler)
    if found is None:
        raise UnknownStepLawError(
            f"expected a scheduler whose steps have a known density, got {type(call.scheduler).__name__}; use DDIM "
            f"with eta above 0, {', '.join(sorted(_LAWS.keys() - {'DDIMScheduler'}))}, or a flow-matching scheduler "
            "with scheduler='auto'."
        )
    return found(call)


def _law_of(scheduler: Any) -> Callable[[StepCall], Transition] | None:
    if takes_kernel_steps(scheduler):
        return _flow_kernel
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    name = next((base.__name__ for base in type(scheduler).__mro__ if base.__name__ in _LAWS), None)
    if name is None or (name.startswith("DDPM") and config.get("variance_type") not in _DRAWN_TYPES):
        return None  # a learned variance differs from pixel to pixel
    return _LAWS[name]


def _twin(scheduler: Any) -> Any:
    """A copy whose steps leave the scheduler alone; it shares what steps only read."""
    twin = copy.copy(scheduler)
    twin.__dict__.pop("step", None)  # an interception lives there, bound to the original
    for name, value in vars(twin).items():
        if isinstance(value, list):
            twin.__dict__[name] = list(value)
    return twin


def _stepped(twin: Any, call: StepCall, sample: Tensor, output: Tensor, **changed: Any) -> Tensor:
    """Where the copy steps, with its own arguments but for those changed."""
    names = inspect.signature(twin.step).parameters
    given = {**call.arguments, "generator": None, "return_dict": False, **changed}
    given = {name: value for name, value in given.items() if name in names}
    stepped: Tensor = twin.step(model_output=output, timestep=call.timestep, sample=sample, **given)[0]
    return stepped


def _ddim(call: StepCall) -> Transition:
    scheduler, timestep = call.scheduler, int(call.timestep)
    before = timestep - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    variance = float(scheduler._get_variance(timestep, before))
    mean = _stepped(_twin(scheduler), call, call.sample, call.model_output,
                    variance_noise=torch.zeros_like(call.model_output))  # fmt: skip
    return Transition(mean, float(call.arguments.get("eta", 0.0)) * math.sqrt(max(variance, 0.0)))


def _ddpm(call: StepCall) -> Transition:
    scheduler, timestep = call.scheduler, int(call.timestep)
    std = 0.0
    if timestep > 0:
        variance = float(scheduler._get_variance(timestep))
        std = variance if scheduler.variance_type == "fixed_small_log" else math.sqrt(variance)  # there it is a std
    twin = _twin(scheduler)
    twin._get_variance = lambda *args, **kwargs: torch.zeros((), device=call.sample.device)
    source = torch.Generator(call.sample.device).manual_seed(0)  # what it draws is multiplied by zero
    return Transition(_stepped(twin, call, call.sample, call.model_output, generator=source), std)


def _euler_ancestral(call: StepCall) -> Transition:
    levels = step_levels(call.scheduler, call.timestep)
    sigma, after = levels.sigma, levels.next_sigma
    variance = after**2 * (sigma**2 - after**2) / sigma**2
    down = math.sqrt(max(after**2 - variance, 0.0))
    sample = call.sample.float()
    x0 = call.at(sample).denoised()
    mean = x0 + (sample - x0) * (down / sigma)
    return Transition(mean, math.sqrt(max(variance, 0.0)))


def _dpmsolver(call: StepCall) -> Transition:
    twin = _twin(call.scheduler)
    _force_noise(twin, torch.zeros_like)
    source = torch.Generator(call.sample.device).manual_seed(0)  # what it draws is not used
    mean = _stepped(twin, call, call.sample, call.model_output, generator=source)
    return Transition(mean, _probed_std(call))


def _force_noise(twin: Any, make: Callable[[Tensor], Tensor]) -> None:
    """Has the solver's updates take a noise of our own in place of what its step draws."""
    for name in _UPDATES:
        original = getattr(twin, name, None)
        if original is None:
            continue

        def update(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            if kwargs.get("noise") is not None:
                kwargs["noise"] = make(kwargs["noise"])
            return _original(*args, **kwargs)

        setattr(twin, name, update)


def _probed_std(call: StepCall) -> float:
    """A solver is linear in sample, output and history: of zeros and a noise of ones it makes the deviation."""
    twin, like = _twin(call.scheduler), call.sample[:1]
    nothing = torch.zeros_like(like, dtype=torch.float32)
    for name, value in vars(twin).items():  # its history
        if isinstance(value, list):
            kept = [nothing if isinstance(item, Tensor) and item.shape == call.sample.shape else item for item in value]
            twin.__dict__[name] = kept
    _force_noise(twin, torch.ones_like)
    source = torch.Generator(like.device).manual_seed(0)
    return float(_stepped(twin, call, nothing, nothing, generator=source).flatten()[0])


def _flow_kernel(call: StepCall) -> Transition:
    return kernel_transition(_twin(call.scheduler), call.model_output, call.timestep, call.sample)[0]


_LAWS: dict[str, Callable[[StepCall], Transition]] = {
    **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler"), _ddim),
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler"), _ddpm),
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    **dict.fromkeys(("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"), _dpmsolver),
}
