"""Rows of a network's batch that are copies of one another: evaluated once, and given back to all."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.microbatch import UNBATCHED, is_list_of_tensors, take_rows


class SharedRows:
    """Groups of particles that go on with fewer: their rows are copies, those of one particle side by side.

    Args:
        groups: those that do, (B,) bool.
        group_size: K, rows of each group, side by side.
        copies: rows of each of its particles, a divisor of K.

    Attributes:
        source: (B * K,), the row that each row is a copy of.
    """

    def __init__(self, groups: Tensor, group_size: int, copies: int) -> None:
        rows = torch.arange(len(groups) * group_size)
        self.source = torch.where(groups.cpu().repeat_interleave(group_size), rows - rows % copies, rows)

    def copied(self, samples: Tensor) -> Tensor:
        """Return samples (B * K, ...) with those of the first row in place of its copies."""
        return samples[self.source.to(samples.device)]

    def evaluate(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], rows: int
    ) -> tuple[Any, int]:
        """Call a network with one row of each set of copies.

        All rows are evaluated where they are not B * K, once or more often (guidance), where the arguments of copies
        differ, or where one has several entries a row, such as the frames of a video: then this saves nothing, and is
        as right.

        Args:
            call: the network; gets positional arguments, keyword arguments and the number of rows.
            args: positional arguments of all rows.
            kwargs: keyword arguments of all rows.
            rows: of the whole batch.

        Returns:
            What the network returns for the whole batch, and the rows that were evaluated.
        """
        blocks, rest = divmod(rows, len(self.source))
        source = torch.cat([self.source + block * len(self.source) for block in range(blocks)]) if blocks else None
        if source is None or rest or not _are_copies((args, kwargs), source, rows):
            return call(args, kwargs, rows), rows
        kept, places = torch.unique(source, return_inverse=True)
        output = call(take_rows(args, kept, rows), take_rows(kwargs, kept, rows), len(kept))
        return _spread(output, places, len(kept)), len(kept)


def _are_copies(value: Any, source: Tensor, rows: int) -> bool:
    """Whether every row of every argument equals the row that it is to be a copy of, and none has several entries."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or value.shape[0] != rows:
            return value.ndim == 0 or value.shape[0] == 0 or value.shape[0] % rows != 0
        return torch.equal(value, value[source.to(value.device)])
    if is_list_of_tensors(value) and len(value) == rows:  # one tensor a row
        return False
    if isinstance(value, dict):
        return all(_are_copies(item, source, rows) for name, item in value.items() if name not in UNBATCHED)
    if isinstance(value, list | tuple):
        return all(_are_copies(item, source, rows) for item in value)
    return True


def _spread(output: Any, places: Tensor, rows: int) -> Any:
    """Return what a network gave for some rows, with row `places[i]` of it at place i."""
    if isinstance(output, Tensor):
        return output[places.to(output.device)] if output.ndim > 0 and output.shape[0] == rows else output
    if isinstance(output, dict):  # diffusers' and transformers' outputs are ordered dictionaries with attributes
        return type(output)(**{name: _spread(item, places, rows) for name, item in output.items()})
    if isinstance(output, list | tuple):
        return type(output)(_spread(item, places, rows) for item in output)
    return output
