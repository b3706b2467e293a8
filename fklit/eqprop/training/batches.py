"""Batches of labeled samples, and their check."""

from collections.abc import Mapping
from typing import TypedDict

from torch import Tensor


class LabeledBatch(TypedDict):
    """Inputs, classes from 0, and a number that stays with each sample."""

    x: Tensor
    y: Tensor
    index: Tensor


def check_batch(batch: LabeledBatch, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return `x` and `y` of a batch.

    Raises:
        TypeError: If the batch is no dictionary with `x`, `y` and `index`, or the labels are no whole numbers.
        ValueError: If there is not one label for each sample, or one is out of range.
    """
    given = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
    if not isinstance(batch, Mapping) or not {"x", "y", "index"} <= set(batch):
        raise TypeError(f"expected a batch as a dictionary with 'x', 'y' and 'index', got {given}.")
    x, y = batch["x"], batch["y"]
    if y.is_floating_point() or y.dim() != 1 or len(y) != len(x):
        raise (TypeError if y.is_floating_point() else ValueError)(
            f"expected one class number for each of {len(x)} samples, got labels of type {y.dtype} and shape "
            f"{tuple(y.shape)}."
        )
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(
            f"expected labels from 0 to {num_classes - 1}, got labels from {int(y.min())} to {int(y.max())}; check the "
            "data or num_classes."
        )
    return x, y
