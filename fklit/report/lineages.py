"""Who descends from whom: the ancestors of a run turned into what a picture needs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lineages:
    """Family relations over S + 1 columns: the S steps that weighed, and the returned samples.

    Attributes:
        parents: ``(S, K)``; ``parents[s, k]`` is the slot in column s of the parent of slot k in column s + 1.
        alive: ``(S + 1, K)``; whether a slot has a returned descendant.
        roots: ``(S + 1, K)``; slot in column 0 that a slot descends from.
        chosen: ``(S + 1, K)``; whether a slot is an ancestor of the chosen sample.
    """

    parents: Integers
    alive: npt.NDArray[np.bool_]
    roots: Integers
    chosen: npt.NDArray[np.bool_]


def trace(ancestors: Integers, chosen: int) -> Lineages:
    """Follow every returned sample back to its root.

    Args:
        ancestors: ``(S, K)`` slot of the parent of each slot after each step.
        chosen: slot of the chosen sample.
    """
    steps, slots = ancestors.shape
    alive = np.ones((steps + 1, slots), dtype=np.bool_)
    path = np.zeros((steps + 1, slots), dtype=np.bool_)
    path[steps, chosen] = True
    for s in range(steps - 1, -1, -1):
        alive[s] = False
        alive[s, ancestors[s, alive[s + 1]]] = True
        path[s, ancestors[s, path[s + 1]]] = True
    roots = np.tile(np.arange(slots), (steps + 1, 1))
    for s in range(steps):
        roots[s + 1] = roots[s, ancestors[s]]
    return Lineages(ancestors, alive, roots, path)


def thin(ancestors: Integers, resampled: npt.NDArray[np.bool_], limit: int) -> tuple[Integers, Integers]:
    """Keep at most ``limit`` steps for a picture, and join the ancestors across the gaps.

    The first step stays, then steps that resampled, then evenly spaced ones.

    Args:
        ancestors: ``(S, K)``.
        resampled: ``(S,)``.
        limit: most columns that fit.

    Returns:
        The kept columns ``(s,)`` in order, and their ancestors ``(s, K)``: for each slot of the next kept column the
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
    """Ancestors ``(s, K)`` across the gaps between kept columns ``(s,)``; the last are of the returned samples."""
    steps, slots = ancestors.shape
    joined = np.empty((len(kept), slots), dtype=np.int64)
    for i, start in enumerate(kept):
        stop = kept[i + 1] if i + 1 < len(kept) else steps
        slot = np.arange(slots)
        for s in range(stop - 1, start - 1, -1):
            slot = ancestors[s, slot]
        joined[i] = slot
    return joined
