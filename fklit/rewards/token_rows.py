"""Rows of tokens of different lengths, put together into batches for a network."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

STEP = 8  # lengths are rounded up to a multiple: of up to 64 tokens there are eight shapes


@dataclass(frozen=True)
class TokenBatch:
    """Rows of one length after padding on the right.

    Attributes:
        rows: Which of all rows these are, n numbers; further rows of the tensors are fillers.
        tokens: (m, l), m of at least n.
        mask: (m, l), 1 for tokens and 0 for padding.
    """

    rows: list[int]
    tokens: Int64[Tensor, "m l"]
    mask: Int64[Tensor, "m l"]


def token_batches(
    ids: Sequence[Sequence[int]], *, pad: int | None, limit: int | None = None, fill: int | None = None
) -> Iterator[TokenBatch]:
    """Batches of rows of similar length.

    Which shape a row is computed in depends on its own length only (and with `fill` on nothing else), so that its
    result does not depend on the rows beside it.

    Args:
        ids: Tokens of each row; every row has some.
        pad: Token to pad with; None for a network without one, which gets one row at a time.
        limit: Longest row that the network takes; padding does not exceed it. None for no limit.
        fill: Rows of each batch, made up by repeating the last; None for as many as there are.
    """
    groups: dict[int, list[int]] = {}
    most = 1 if pad is None else fill
    for row, given in enumerate(ids):
        size = len(given) if pad is None else -(-len(given) // STEP) * STEP
        groups.setdefault(max(len(given), size if limit is None else min(size, limit)), []).append(row)
    for size, rows in sorted(groups.items()):
        for start in range(0, len(rows), most or len(rows)):
            some = rows[start : start + (most or len(rows))]
            filled = some + some[-1:] * ((most or len(some)) - len(some))
            tokens = torch.tensor([[*ids[row], *[pad or 0] * (size - len(ids[row]))] for row in filled])
            mask = torch.tensor([[1] * len(ids[row]) + [0] * (size - len(ids[row])) for row in filled])
            yield TokenBatch(some, tokens, mask)


def by_rows(
    batches: Iterator[TokenBatch], count: int, compute: Callable[[TokenBatch], Float[Tensor, "m ..."]]
) -> list[Float[Tensor, "..."]]:
    """What a network gives for each of `count` rows, in their order.

    Args:
        batches: From `token_batches`.
        count: Rows in all.
        compute: The network, on one batch.
    """
    found: list[Tensor] = [torch.empty(0)] * count
    for batch in batches:
        for row, values in zip(batch.rows, compute(batch), strict=False):  # further values are of fillers
            found[row] = values
    return found
