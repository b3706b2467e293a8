"""The family tree of a run, from the ancestors of its updates.

`ancestors` is a sequence with one entry an update: int64 (B, K), or None if no group resampled then
(`ParticleResult.ancestors`, `ParticleSystem.ancestors`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from fklit.feynman_kac.checks import check_count, check_matrix


def lineages(
    ancestors: Sequence[Tensor | None], *, num_groups: int, num_particles: int
) -> Int64[Tensor, "updates B K"]:
    """Return where each final particle's line stood: shape (S + 1, B, K) for S updates.

    Row s is the slot just before update s (row 0: the initial slot, the root); row S is 0 .. K-1. A state recorded
    before update s, indexed by row s, gives the history of the final particles.
    """
    rows = [_slots(num_groups, num_particles, ancestors)]
    for entry in reversed(_checked(ancestors, num_groups, num_particles)):
        rows.append(rows[-1] if entry is None else entry.gather(1, rows[-1]))
    return torch.stack(rows[::-1])


def roots(ancestors: Sequence[Tensor | None], *, num_groups: int, num_particles: int) -> Int64[Tensor, "updates B K"]:
    """Return the initial slot that each particle descends from after each update, shape (S, B, K)."""
    rows, current = [], _slots(num_groups, num_particles, ancestors)
    for entry in _checked(ancestors, num_groups, num_particles):
        current = current if entry is None else current.gather(1, entry)
        rows.append(current)
    return torch.stack(rows) if rows else current.new_zeros(0, num_groups, num_particles)


def unique_roots(
    ancestors: Sequence[Tensor | None], *, num_groups: int, num_particles: int
) -> Int64[Tensor, "updates B"]:
    """Return how many initial particles still have descendants after each update, shape (S, B); it never increases."""
    alive = torch.zeros(num_groups, num_particles, dtype=torch.int64)
    counts, current = [], _slots(num_groups, num_particles, ancestors)
    for entry in _checked(ancestors, num_groups, num_particles):
        current = current if entry is None else current.gather(1, entry)
        counts.append(alive.to(current.device).scatter(1, current, 1).sum(dim=1))
    return torch.stack(counts) if counts else current.new_zeros(0, num_groups)


def coalescence(ancestors: Sequence[Tensor | None], *, num_groups: int, num_particles: int) -> Int64[Tensor, " B"]:
    """Return the latest update before which all final particles were one, shape (B,); -1 if they have several roots.

    A value s means: the line is common up to the slot before update s, and split at update s. With K = 1 it is S.
    """
    last = torch.full((num_groups,), -1, dtype=torch.int64)
    current = _slots(num_groups, num_particles, ancestors)
    last = last.to(current.device)
    checked = _checked(ancestors, num_groups, num_particles)
    for row in range(len(checked), -1, -1):
        single = (current == current[:, :1]).all(dim=1)
        last = torch.where((last < 0) & single, row, last)
        if row > 0:
            entry = checked[row - 1]
            current = current if entry is None else entry.gather(1, current)
    return last


def _slots(num_groups: int, num_particles: int, ancestors: Sequence[Tensor | None]) -> Tensor:
    check_count("num_groups", num_groups)
    check_count("num_particles", num_particles)
    device = next((entry.device for entry in ancestors if entry is not None), torch.device("cpu"))
    return torch.arange(num_particles, device=device).repeat(num_groups, 1)


def _checked(ancestors: Sequence[Tensor | None], num_groups: int, num_particles: int) -> Sequence[Tensor | None]:
    for entry in ancestors:
        if entry is not None:
            check_matrix("ancestors", entry, (num_groups, num_particles))
    return ancestors
