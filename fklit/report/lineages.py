"""Who descends from whom: the ancestors of a run turned into what a picture needs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from fklit.feynman_kac import genealogy

Integers = npt.NDArray[np.int64]

# Ten hues of like lightness that stay apart on white and on near-black; further roots start again.
ROOT_COLORS = (
    "#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899", "#84cc16", "#f97316", "#8b5cf6",
)  # fmt: skip


@dataclass(frozen=True)
class Lineages:
    """Descent over S + 1 columns: the S weighted steps, and the returned samples.

    Attributes:
        parents: `(S, K)`; `parents[s, k]` is the slot in column s of the parent of slot k in column s + 1.
        alive: `(S + 1, K)`; whether a slot has a returned descendant.
        roots: `(S + 1, K)`; slot in column 0 that a slot descends from.
        chosen: `(S + 1, K)`; whether a slot is an ancestor of the chosen sample.
    """

    parents: Integers
    alive: npt.NDArray[np.bool_]
    roots: Integers
    chosen: npt.NDArray[np.bool_]

    def color(self, column: int, slot: int) -> str:
        """Color of everything that descends from the same root as this slot."""
        return ROOT_COLORS[int(self.roots[column, slot]) % len(ROOT_COLORS)]

    def state(self, column: int, slot: int) -> str:
        """`"chosen"` for an ancestor of the chosen sample, `"alive"` for one of another sample, else `"dead"`."""
        return "chosen" if self.chosen[column, slot] else "alive" if self.alive[column, slot] else "dead"


def trace(ancestors: Integers, chosen: int) -> Lineages:
    """Follow every returned sample back to its root.

    Args:
        ancestors: `(S, K)` slot of the parent of each slot after each step.
        chosen: slot of the chosen sample.
    """
    steps, slots = ancestors.shape
    lines = _lines(ancestors)
    columns = np.arange(steps + 1)
    alive = np.zeros((steps + 1, slots), dtype=np.bool_)
    alive[columns[:, None], lines] = True
    path = np.zeros((steps + 1, slots), dtype=np.bool_)
    path[columns, lines[:, chosen]] = True
    later = genealogy.roots(_updates(ancestors), num_groups=1, num_particles=slots)[:, 0].numpy()
    return Lineages(ancestors, alive, np.vstack([np.arange(slots)[None], later]), path)


def thin(ancestors: Integers, resampled: npt.NDArray[np.bool_], limit: int) -> tuple[Integers, Integers]:
    """Keep at most `limit` steps for a picture, and join the ancestors across the gaps.

    The first step stays, then steps that resampled, then evenly spaced ones.

    Args:
        ancestors: `(S, K)`.
        resampled: `(S,)`.
        limit: most columns that fit.

    Returns:
        The kept columns `(s,)` in order, and their ancestors `(s, K)`; for each slot of the next kept column the
        slot of its parent in this one.
    """
    steps = len(ancestors)
    if steps <= limit:
        return np.arange(steps), ancestors
    even = set(np.linspace(0, steps - 1, limit).round().astype(int).tolist())
    # Rank: the first column (the roots), then columns that resampled, then evenly spaced ones.
    order = sorted(range(steps), key=lambda s: (s != 0, not resampled[s], s not in even, s))
    kept = np.array(sorted(order[:limit]))
    return kept, join(ancestors, kept)


def join(ancestors: Integers, kept: Integers) -> Integers:
    """Ancestors `(s, K)` across the gaps between kept columns `(s,)`; the last are of the returned samples."""
    bounds = [*kept.tolist(), len(ancestors)]
    pieces = [ancestors[start:stop] for start, stop in pairwise(bounds)]
    return np.array([_lines(piece)[0] for piece in pieces], dtype=np.int64).reshape(len(kept), ancestors.shape[1])


def _lines(ancestors: Integers) -> Integers:
    """`(S + 1, K)`: the slot of each returned sample's ancestor in every column."""
    found = genealogy.lineages(_updates(ancestors), num_groups=1, num_particles=ancestors.shape[1])
    lines: Integers = found[:, 0].numpy()
    return lines


def _updates(ancestors: Integers) -> list[torch.Tensor]:
    return [torch.from_numpy(row)[None] for row in ancestors.astype(np.int64)]
