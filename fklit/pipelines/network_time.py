"""The argument that tells a denoiser the noise level, and its value at another level."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.step_call import NetworkCall

_TIMES = ("timestep", "timesteps", "t")
_CONSTANT = frozenset({"timestep_cond"})  # an embedding of the guidance scale
# What a ControlNet or an adapter has made of the samples at their noise level.
_MADE_OF_SAMPLES = frozenset(
    {
        *("down_block_additional_residuals", "mid_block_additional_residual", "down_intrablock_additional_residuals"),
        *("controlnet_block_samples", "controlnet_single_block_samples", "block_controlnet_hidden_states"),
        *("controlnet_states", "encoder_hidden_states_controlnet"),
    }
)


@dataclass(frozen=True)
class NetworkTime:
    """Where a call of the denoiser has its timestep: `argument = factor * timestep`.

    Attributes:
        name: of the argument, or its place.
        factor: 1, or 1 over the timesteps of training.
        mirrored: whether `1 - timestep / T` would have the same value, at T / 2: then this step alone cannot tell.
    """

    name: str | int
    factor: float
    mirrored: bool

    def put(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], timestep: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call at another timestep, in the shape and dtype that the network had before."""
        before = args[self.name] if isinstance(self.name, int) else kwargs[self.name]
        value = _scaled(timestep, self.factor)
        own = torch.full_like(before, value) if isinstance(before, Tensor) else type(before)(value)
        if isinstance(self.name, int):
            return (*args[: self.name], own, *args[self.name + 1 :]), kwargs
        return args, {**kwargs, self.name: own}


def find_time(item: NetworkCall, timestep: Any, num_train_timesteps: int, otherwise: str) -> NetworkTime:
    """Find the timestep among the arguments of a call.

    Args:
        item: the call, at a known timestep.
        timestep: as the scheduler's grid has it.
        num_train_timesteps: T of the scheduler.
        otherwise: what the user can do where this cannot be done, for messages.

    Raises:
        UnsupportedPipelineError: there is none, its value is another function of the timestep, other arguments depend
            on the noise level as well, or the network keeps what it computed between steps.
    """
    kind = type(item.network).__name__
    names = [name for name in inspect.signature(item.network.forward).parameters if name != "self"]
    given: dict[str, tuple[str | int, Any]] = {
        **{name: (place, value) for place, (name, value) in enumerate(zip(names, item.args, strict=False))},
        **{name: (name, value) for name, value in item.kwargs.items()},
    }
    for name, (_, value) in given.items():
        timed = ("timestep" in name or "sigma" in name) and name not in (*_TIMES, *_CONSTANT)
        if value is not None and not isinstance(value, bool | str) and (timed or name in _MADE_OF_SAMPLES):
            raise UnsupportedPipelineError(
                f"expected a denoiser that is told its noise level by one timestep, got {kind}, whose argument "
                f"{name!r} belongs to the level of the step as well; {otherwise}."
            )
    if getattr(item.network, "is_cache_enabled", False):
        raise UnsupportedPipelineError(
            f"expected a denoiser without a memory, got {kind}, which caches what it computed between steps; call its "
            f"disable_cache(), or {otherwise}."
        )
    found = next(((name, *given[name]) for name in _TIMES if name in given), None)
    if found is None:
        raise UnsupportedPipelineError(
            f"expected a denoiser with an argument {' or '.join(_TIMES)}, got {kind}, which is called with "
            f"{', '.join(given) or 'none by name'}; {otherwise}."
        )
    name, place, value = found
    number, tolerance = _one_number(value)
    for factor in (1.0, 1 / num_train_timesteps):
        wanted = _scaled(timestep, factor)
        if number is not None and abs(number - wanted) <= tolerance * max(abs(wanted), factor):
            mirrored = abs(2 * _scaled(timestep, 1.0) / num_train_timesteps - 1) < 8 * tolerance
            return NetworkTime(place, factor, mirrored)
    shown = "values that differ" if number is None else f"{number:g}"
    raise UnsupportedPipelineError(
        f"expected {kind} to be called with {name} = {_scaled(timestep, 1.0):g}, or that over {num_train_timesteps}, "
        f"got {shown}; {otherwise}."
    )


def _one_number(value: Any) -> tuple[float | None, float]:
    """The number that all entries of a timestep are, if they are one, and the relative rounding of its dtype."""
    if isinstance(value, Tensor):
        if value.numel() == 0 or value.is_complex() or not bool((value == value.flatten()[0]).all()):
            return None, 0.0
        rounding = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        return float(value.flatten()[0]), max(2 * rounding, 1e-6)
    if isinstance(value, int | float):
        return float(value), 1e-6
    return None, 0.0


def _scaled(timestep: Any, factor: float) -> float:
    return factor * (float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep))
