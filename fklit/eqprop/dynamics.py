"""Relaxation to a fixed point: sweeps by colour or synchronous, damped or not, each sample frozen at its own stop.

A sample's path does not depend on its neighbours: it stops at its own first small change, whatever the batch. Samples
that do not settle are counted and told apart (period two, diverged); nothing is replaced silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fklit.eqprop.state import State, halves, per_row, pick_rows


@dataclass(frozen=True)
class Relaxation:
    """How to relax.

    Attributes:
        max_steps: Most sweeps; every sweep updates each population once.
        tolerance: A sample stops when no activity changes by as much in a sweep (divided by ``rate``); 0 runs all
            ``max_steps`` and calls no sample settled.
        order: ``"sweep"`` updates one colour of populations after another with the newest activities (even and odd
            layers of a layered net; no two populations of a colour are connected), ``"synchronous"`` all at once.
        rate: Fraction of the way to the new value, in (0, 1]; below 1 the steps are damped.
        bound: A sample whose activities exceed it in size, or are not finite, has diverged.
        check_every: Sweeps between looks at whether all have stopped. Does not change any result.
    """

    max_steps: int = 150
    tolerance: float = 1e-4
    order: Literal["sweep", "synchronous"] = "sweep"
    rate: float = 1.0
    bound: float = 1e4
    check_every: int = 5

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.check_every < 1:
            raise ValueError(
                f"max_steps={self.max_steps} and check_every={self.check_every} were given; both are at least 1."
            )
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate} was given; it is in (0, 1], where 1 is undamped.")
        if self.tolerance < 0 or not self.bound > 0:
            raise ValueError(
                f"tolerance={self.tolerance} and bound={self.bound} were given; tolerance is at least 0, bound above 0."
            )
        if self.order not in ("sweep", "synchronous"):
            raise ValueError(f"order={self.order!r} was given; give 'sweep' or 'synchronous'.")


@dataclass(frozen=True)
class Settled:
    """Where a relaxation ended. Rows are samples, or phase after phase of all samples.

    Attributes:
        state: Activities. A diverged sample keeps its last finite ones.
        steps: Sweeps that each sample took.
        residual: Largest change of an activity in the last sweep; infinite if diverged.
        settled: Whether the change fell below the tolerance.
        diverged: Whether it blew up.
        period_two: Whether an unsettled sample jumps between two states (False if not asked for).
    """

    state: State
    steps: Int[Tensor, " rows"]
    residual: Float[Tensor, " rows"]
    settled: Bool[Tensor, " rows"]
    diverged: Bool[Tensor, " rows"]
    period_two: Bool[Tensor, " rows"]

    def counts(self) -> dict[str, int]:
        """Number of samples, and of those that are unsettled, of period two, and diverged (both are unsettled)."""
        return {
            "samples": len(self.steps),
            "unsettled": int((~self.settled).sum()),
            "period_two": int(self.period_two.sum()),
            "diverged": int(self.diverged.sum()),
        }


class Field(Protocol):
    """What is relaxed: a map whose fixed point is wanted."""

    @property
    def parts(self) -> int:
        """Tensors' rows for each sample: 1, or 2 if the state is split into real and imaginary half."""
        ...

    @property
    def colours(self) -> Sequence[Sequence[int]]:
        """Populations in groups that may be updated together, in the order of a sweep."""
        ...

    def update(self, state: State, populations: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some populations."""
        ...

    def select(self, samples: Tensor) -> "Field":
        """The same map for some of the samples only."""
        ...


def sweep(field: Field, state: State, relaxation: Relaxation) -> State:
    """Update every population once. Differentiable if the field is."""
    colours = field.colours
    if relaxation.order == "synchronous":
        colours = [[population for colour in colours for population in colour]]
    current = list(state)
    for colour in colours:
        for population, value in field.update(tuple(current), colour).items():
            if relaxation.rate < 1:
                value = torch.lerp(current[population], value, relaxation.rate)
            current[population] = value
    return tuple(current)


def _largest(state: Sequence[Tensor], parts: int) -> Tensor:
    """Largest modulus of an entry in each sample; NaN if one is NaN."""
    sizes = (torch.hypot(*halves(part)) if parts == 2 else part.abs() for part in state)
    return torch.stack([size.flatten(1).amax(1) for size in sizes]).amax(0)


def _change(new: State, old: State, parts: int) -> Tensor:
    return _largest([a - b for a, b in zip(new, old, strict=True)], parts)


def _with_parts(samples: Tensor, parts: int, total: int) -> Tensor:
    """Rows of tensors that belong to some samples."""
    return torch.cat([samples + part * total for part in range(parts)])


@torch.no_grad()
def settle(field: Field, start: State, relaxation: Relaxation, *, classify: bool = False) -> Settled:
    """Relax every sample until it settles, diverges, or ``max_steps`` are over.

    Args:
        field: The map.
        start: First state, not changed.
        relaxation: Order, tolerance and limits.
        classify: Tell by two more sweeps which unsettled samples are in a cycle of two states.
    """
    parts = field.parts
    total = len(start[0]) // parts
    device = start[0].device
    real_dtype = start[0].real.dtype
    final = tuple(part.clone() for part in start)
    steps = torch.zeros(total, dtype=torch.long, device=device)
    residual = torch.full((total,), torch.inf, dtype=real_dtype, device=device)
    diverged = torch.zeros(total, dtype=torch.bool, device=device)
    settled = torch.zeros_like(diverged)
    period_two = torch.zeros_like(diverged)

    samples = torch.arange(total, device=device)  # those still in the working batch
    active = torch.ones_like(diverged)  # among them
    state = start

    def keep(rows: Tensor) -> None:
        for whole, part in zip(final, state, strict=True):
            whole[rows] = part

    for step in range(1, relaxation.max_steps + 1):
        proposal = sweep(field, state, relaxation)
        change = _change(proposal, state, parts) / relaxation.rate
        good = torch.isfinite(change) & (_largest(proposal, parts) <= relaxation.bound)
        commit = active & good
        mask = commit.repeat(parts)
        state = tuple(torch.where(per_row(mask, new), new, old) for new, old in zip(proposal, state, strict=True))
        stopped = commit & (change < relaxation.tolerance)
        steps[samples] = torch.where(active, step, steps[samples])
        residual[samples] = torch.where(commit, change, torch.where(active, torch.inf, residual[samples]))
        settled[samples] |= stopped
        diverged[samples] |= active & ~good
        active = commit & ~stopped
        if step % relaxation.check_every == 0 or step == relaxation.max_steps:
            left = int(active.sum())
            if left == 0 or 2 * left <= len(samples):  # a batch of half the size pays for the copies
                keep(_with_parts(samples, parts, total))
                if left == 0:
                    samples = samples[:0]
                    break
                chosen = active.nonzero().squeeze(1)
                state = pick_rows(state, _with_parts(chosen, parts, len(samples)))
                field, samples, active = field.select(chosen), samples[chosen], active[chosen]
    if len(samples):
        keep(_with_parts(samples, parts, total))
        if classify:
            once = sweep(field, state, relaxation)
            twice = sweep(field, once, relaxation)
            single, double = _change(once, state, parts), _change(twice, state, parts)
            period_two[samples] = active & (double <= torch.clamp(0.01 * single, min=relaxation.tolerance))
    return Settled(final, steps, residual, settled, diverged, period_two)
