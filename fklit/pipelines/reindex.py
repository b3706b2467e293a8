"""What of a step belongs to each sample, and moves with the particles when they are resampled."""

from typing import Any

import torch
from torch import Tensor


def is_per_sample(value: Any, sample: Tensor) -> bool:
    """Return whether an argument of a step has one entry a sample.

    The full shape counts: the first axis of `timesteps` can equal the number of samples by chance.
    """
    return isinstance(value, Tensor) and value.shape == sample.shape


def reindex_state(scheduler: Any, shape: torch.Size, ancestors: Tensor) -> None:
    """Re-index what a multi-step solver remembers of each sample; noise sources belong to slots and stay.

    Args:
        scheduler: is changed.
        shape: of the samples, (N, C, ...).
        ancestors: flat ancestors (N,).
    """

    def select(value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape == shape:
            return value[ancestors.to(value.device)]
        if isinstance(value, list):
            return [select(item) for item in value]
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return tuple(select(item) for item in value)
        return value

    for name, value in vars(scheduler).items():
        if isinstance(value, Tensor | list | tuple):
            setattr(scheduler, name, select(value))
