"""What `scheduler.step` returns, with another sample in it."""

import dataclasses
from typing import Any

from torch import Tensor


def with_sample(output: Any, sample: Tensor) -> Any:
    """Return the output of a step, a tuple or one of diffusers' output classes, with `sample` in place of its own."""
    if isinstance(output, tuple):
        parts = (sample, *output[1:])
        return type(output)(parts)
    return dataclasses.replace(output, prev_sample=sample)
