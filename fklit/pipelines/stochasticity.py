"""At which calls a scheduler injects noise, found by trying it.

Clones of a particle separate only through noise. Tables of class names are wrong about it (DDIM depends on `eta`,
TCD on what the pipeline sends, KDPM2 ancestral draws at every second call only), so the scheduler itself is asked: two
copies are stepped with different generators on a dummy sample. No denoiser call is spent.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.seeds import copied_without_noise


class SchedulerSwapWarning(UserWarning):
    """`scheduler='auto'` runs another sampler than the one the pipeline came with."""


def noisy_calls(
    scheduler: Any, arguments: Mapping[str, Any], timesteps: Sequence[Any], wanted: Collection[int]
) -> dict[int, bool]:
    """Which of the coming `scheduler.step` calls inject noise.

    Args:
        scheduler: the scheduler at the first call of a run; copies of it are stepped, it is not changed.
        arguments: arguments of the first call by name, with tensors of one row (`model_output`, `sample`, ...).
        timesteps: the timesteps of all the calls.
        wanted: indices of the calls that are asked about.

    Returns:
        For each index in `wanted` whether two different generators give two different results.
    """
    key = _key(scheduler, arguments, timesteps, wanted)
    question = _Question(key, lambda: _tried(scheduler, arguments, timesteps, wanted))
    return dict(question.ask() if key is None else _remembered(question))


class _Question:
    """One question, equal to those of the same key; what answers it goes once it has been asked."""

    def __init__(self, key: Hashable, answer: Callable[[], dict[int, bool]]) -> None:
        self.key = key
        self._answer: Callable[[], dict[int, bool]] | None = answer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def ask(self) -> dict[int, bool]:
        answer, self._answer = self._answer, None
        assert answer is not None, "asked before"
        return answer()


@lru_cache(maxsize=64)
def _remembered(question: _Question) -> dict[int, bool]:
    """The answer, tried once for each state of a scheduler that questions are asked about."""
    return question.ask()


def _key(
    scheduler: Any, arguments: Mapping[str, Any], timesteps: Sequence[Any], wanted: Collection[int]
) -> Hashable | None:
    """All that an answer depends on; None where that cannot be told, so that nothing is remembered.

    The whole state of the scheduler is part of it, with the numbers of its tables. Kernels of flow matching stand in
    classes that are made for a run, about which nothing is remembered.
    """
    kind = type(scheduler)
    if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
        return None
    given = {name: value for name, value in arguments.items() if name not in ("sample", "model_output", "generator")}
    state = {name: value for name, value in vars(scheduler).items() if name != "step"}
    tensors = [arguments.get(name) for name in ("sample", "model_output")]
    if not all(isinstance(value, Tensor) and bool(torch.isfinite(value).all()) for value in tensors):
        return None
    kinds = [(value.dtype, value.device) for value in tensors if value is not None]
    try:
        return (kind, *kinds, *(_frozen(part) for part in (given, state, list(timesteps), sorted(wanted))))
    except TypeError:
        return None


def _frozen(value: Any) -> Hashable:
    """A value that is equal for equal numbers.

    Raises:
        TypeError: the value is an object of unknown content.
    """
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        return type(value), value
    if isinstance(value, Tensor):
        return value.dtype, value.device, tuple(value.shape), tuple(value.flatten().tolist())
    if callable(getattr(value, "tobytes", None)):  # NumPy
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return tuple((str(name), _frozen(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    raise TypeError(f"expected numbers, got a {type(value).__name__}.")


def _tried(
    scheduler: Any, arguments: Mapping[str, Any], timesteps: Sequence[Any], wanted: Collection[int]
) -> dict[int, bool]:
    runner = _unpatched_copy(scheduler)
    sample: Tensor = arguments["sample"]
    devices = [sample.device] if sample.device.type == "cuda" else []
    result: dict[int, bool] = {}
    last = max(wanted, default=-1)
    with torch.random.fork_rng(devices=devices):
        for index, timestep in enumerate(timesteps[: last + 1]):
            call = {**arguments, "timestep": timestep, "sample": sample}
            if hasattr(runner, "scale_model_input"):  # some schedulers find their position there
                runner.scale_model_input(sample, timestep)
            other = copied_without_noise(runner) if index in wanted else None
            sample = _step(runner, call, 1)
            if other is not None:
                result[index] = not torch.equal(sample, _step(other, call, 2))
    return result


def _unpatched_copy(scheduler: Any) -> Any:
    duplicate = copied_without_noise(scheduler)
    duplicate.__dict__.pop("step", None)  # an interception lives there, bound to the original
    return duplicate


def _step(scheduler: Any, arguments: Mapping[str, Any], seed: int) -> Tensor:
    names = inspect.signature(scheduler.step).parameters
    # For schedulers that take no generator; torch.manual_seed formats the stack for every kind of device.
    torch.default_generator.manual_seed(seed)
    if arguments["sample"].device.type == "cuda":
        torch.cuda.manual_seed(seed)
    given = dict(arguments)
    if "generator" in names and given.get("variance_noise") is None:
        given["generator"] = torch.Generator().manual_seed(seed)
    given["return_dict"] = False
    stepped: Tensor = scheduler.step(**{name: value for name, value in given.items() if name in names})[0]
    return stepped
