"""What functions return as rewards, brought to one tensor of scores."""

import asyncio
import contextvars
import inspect
import math
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fklit.checks import as_number
from fklit.rewards.base import RewardError


def as_scores(returned: Any, count: int, name: str) -> Tensor:
    """Scores (n,) from what a reward function returned.

    Args:
        returned: a tensor or an array (n,) or (n, 1); a list of n numbers, tensors of one element, or None (which
            becomes NaN); `(scores, info)`, whose info is dropped; a bare number for one sample; an awaitable of these.
        count: n.
        name: what errors call the function.

    Raises:
        RewardError: if it is anything else.
    """
    if inspect.isawaitable(returned):
        returned = _awaited(returned)
    if isinstance(returned, tuple) and _has_info(returned, count):
        returned = returned[0]
    if isinstance(returned, Mapping):
        raise RewardError(
            f"expected {count} score(s) from {name}, got a {type(returned).__name__} with keys {list(returned)}; "
            "return the entry that is the score."
        )
    if returned is None:
        raise RewardError(f"expected {count} score(s) from {name}, got None; return them (is a `return` missing?).")
    number = None if isinstance(returned, Tensor) else as_number(returned)
    if number is not None:
        return _one(torch.tensor(number), count, name)
    if isinstance(returned, Tensor):
        scores = returned
    elif isinstance(returned, Sequence) and not isinstance(returned, str | bytes):
        scores = _from_list(returned, count, name)
    elif hasattr(returned, "__array__"):  # NumPy, pandas, JAX
        array = np.asarray(returned)
        scores = _from_list(array.tolist(), count, name) if array.dtype == object else _from_array(array, name)
    else:
        raise RewardError(
            f"expected {count} score(s) from {name}, got a {type(returned).__name__}; return a tensor, an array or a "
            "list of numbers."
        )
    if scores.ndim == 0:
        return _one(scores, count, name)
    return scores.squeeze(1) if scores.shape == (count, 1) else scores


def _one(score: Tensor, count: int, name: str) -> Tensor:
    if count != 1:
        raise RewardError(
            f"expected {count} scores from {name}, got one number; return one a sample, or set max_batch=1 if it "
            "scores one sample at a time."
        )
    return score.reshape(1)


def _has_info(returned: tuple[Any, ...], count: int) -> bool:
    """Whether a tuple is `(scores, info)`, and not the scores themselves."""
    if len(returned) != 2:
        return False
    first, second = returned
    if as_number(first) is not None and getattr(first, "ndim", 0) == 0:
        return count == 1 and as_number(second) is None
    if isinstance(first, Tensor | np.ndarray):
        return first.ndim > 0 and first.shape[0] == count
    return isinstance(first, list | tuple) and len(first) == count


def _from_list(values: Sequence[Any], count: int, name: str) -> Tensor:
    if not values:
        raise RewardError(f"expected {count} score(s) from {name}, got an empty list; return one a sample.")
    if all(isinstance(value, Tensor) and value.numel() == 1 for value in values):
        return torch.stack([value.reshape(()) for value in values])  # with their gradients
    found = []
    for place, value in enumerate(values):
        while isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        number = math.nan if value is None else float(value) if isinstance(value, bool | np.bool_) else as_number(value)
        if number is None:
            keys = f" with keys {list(value)}" if isinstance(value, Mapping) else ""
            raise RewardError(
                f"expected {count} score(s) from {name}, got a {type(value).__name__}{keys} as entry {place}; return "
                "numbers, or None for a sample that could not be scored."
            )
        found.append(number)
    wide = any(type(value) is np.float64 for value in values)
    return torch.tensor(found, dtype=torch.float64 if wide else None)


def _from_array(array: "np.ndarray[Any, Any]", name: str) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise RewardError(f"expected numbers from {name}, got an array of {array.dtype}; return floats.")
    wide = {"i": np.int64, "u": np.int64, "f": None}.get(array.dtype.kind)  # torch lacks some unsigned integers
    return torch.as_tensor(np.array(array, dtype=wide))


def _awaited(returned: Awaitable[Any]) -> Any:
    """Wait for a coroutine; in a thread of its own, which has no event loop, where one is running here."""

    async def wait() -> Any:
        return await returned

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    gradients = torch.is_grad_enabled()

    def run() -> Any:  # gradient mode belongs to a thread
        with torch.set_grad_enabled(gradients):
            return asyncio.run(wait())

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, run).result()
