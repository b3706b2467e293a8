"""Relaxation to a fixed point: sweeps by color or synchronous, damped or not, each sample frozen at its own stop.

A sample's path does not depend on its neighbors: it stops at its own first small change, whatever the batch. Samples
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
        order: ``"sweep"`` updates one color of populations after another with the newest activities (even and odd
            layers of a layered net; no two populations of a color are connected), ``"synchronous"`` all at once.
        rate: Fraction of the way to the new value, in (0, 1]; below 1 the steps are damped.
        bound: A sample whose activities exceed it in size, or are not finite, has diverged.
        check_every: Sweeps between looks at which samples have stopped, at which stopped ones leave the batch; None for
            every sweep on a CPU and every fifth elsewhere, where a look waits for the device. Changes no result.
    """

    max_steps: int = 150
    tolerance: float = 1e-4
    order: Literal["sweep", "synchronous"] = "sweep"
    rate: float = 1.0
    bound: float = 1e4
    check_every: int | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 1 or (self.check_every is not None and self.check_every < 1):
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
    def colors(self) -> Sequence[Sequence[int]]:
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
    colors = field.colors
    if relaxation.order == "synchronous":
        colors = [[population for color in colors for population in color]]
    current = list(state)
    for color in colors:
        for population, value in field.update(tuple(current), color).items():
            if relaxation.rate < 1:
                value = torch.lerp(current[population], value, relaxation.rate)
            current[population] = value
    return tuple(current)


def _largest(sizes: Sequence[Tensor]) -> Tensor:
    """Largest entry of each row over all populations; NaN if one is NaN."""
    return torch.stack([size.amax(tuple(range(1, size.dim()))) for size in sizes]).amax(0)


def _moduli(state: Sequence[Tensor], parts: int) -> list[Tensor]:
    return [torch.hypot(*halves(part)) if parts == 2 else part.abs() for part in state]


def _imaginary(state: Sequence[Tensor], parts: int) -> list[Tensor]:
    return [halves(part)[1].abs() if parts == 2 else part.imag.abs() for part in state]


def _change(new: State, old: State, parts: int, imaginary: bool = False) -> Tensor:
    differences = [a - b for a, b in zip(new, old, strict=True)]
    return _largest((_imaginary if imaginary else _moduli)(differences, parts))


def _with_parts(samples: Tensor, parts: int, total: int) -> Tensor:
    """Rows of tensors that belong to some samples."""
    return torch.cat([samples + part * total for part in range(parts)]) if parts > 1 else samples


@dataclass
class _Record:
    """What is known of some samples so far; the entries of :class:`Settled`."""

    steps: Tensor
    residual: Tensor
    settled: Tensor
    diverged: Tensor

    @classmethod
    def blank(cls, samples: int, like: Tensor) -> "_Record":
        no = torch.zeros(samples, dtype=torch.bool, device=like.device)
        residual = torch.full((samples,), torch.inf, dtype=like.real.dtype, device=like.device)
        return cls(torch.zeros(samples, dtype=torch.long, device=like.device), residual, no, no.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        return self.steps, self.residual, self.settled, self.diverged

    def select(self, rows: Tensor) -> "_Record":
        return _Record(*(tensor[rows] for tensor in self.tensors()))

    def write(self, whole: "_Record", samples: Tensor) -> None:
        for target, tensor in zip(whole.tensors(), self.tensors(), strict=True):
            target[samples] = tensor


@torch.no_grad()
def settle(
    field: Field, start: State, relaxation: Relaxation, *, classify: bool = False, imaginary: bool = False
) -> Settled:
    """Relax every sample until it settles, diverges, or ``max_steps`` are over.

    Args:
        field: The map.
        start: First state, not changed.
        relaxation: Order, tolerance and limits.
        classify: Tell by two more sweeps which unsettled samples are in a cycle of two states.
        imaginary: Judge by the imaginary parts' changes only. They may be tiny: real parts of single precision never
            come to rest on their scale.
    """
    parts = field.parts
    total = len(start[0]) // parts
    device = start[0].device
    check_every = relaxation.check_every or (1 if device.type == "cpu" else 5)
    final, whole = tuple(part.clone() for part in start), _Record.blank(total, start[0])
    period_two = torch.zeros_like(whole.settled)

    # The working batch: its state, which samples it holds, which of them still move, and their records.
    state, samples = start, torch.arange(total, device=device)
    active, record = torch.ones_like(whole.settled), whole.select(samples)

    def keep() -> None:
        rows = _with_parts(samples, parts, total)
        for target, part in zip(final, state, strict=True):
            target[rows] = part
        record.write(whole, samples)

    for step in range(1, relaxation.max_steps + 1):
        proposal = sweep(field, state, relaxation)
        change = _change(proposal, state, parts, imaginary)
        if relaxation.rate < 1:
            change = change / relaxation.rate
        commit = active & (_largest(_moduli(proposal, parts)) <= relaxation.bound)  # False for NaN
        look = step % check_every == 0 or step == relaxation.max_steps
        if look and bool(commit.all()):
            state, record.residual = proposal, change
        else:
            mask = commit.repeat(parts)
            state = tuple(torch.where(per_row(mask, new), new, old) for new, old in zip(proposal, state, strict=True))
            record.residual = torch.where(commit, change, torch.where(active, torch.inf, record.residual))
            record.diverged = record.diverged | (active & ~commit)
        record.steps = record.steps + active
        stopped = commit & (change < relaxation.tolerance)
        record.settled = record.settled | stopped
        active = commit & ~stopped
        if look:
            left = int(active.sum())
            if left == 0 or 2 * left <= len(samples):  # a batch of half the size pays for the copies
                keep()
                if left == 0:
                    samples = samples[:0]
                    break
                chosen = active.nonzero().squeeze(1)
                state = pick_rows(state, _with_parts(chosen, parts, len(samples)))
                field, samples, record = field.select(chosen), samples[chosen], record.select(chosen)
                active = torch.ones_like(record.settled)
    if len(samples):
        keep()
        if classify:
            once = sweep(field, state, relaxation)
            twice = sweep(field, once, relaxation)
            single, double = _change(once, state, parts), _change(twice, state, parts)
            period_two[samples] = active & (double <= torch.clamp(0.01 * single, min=relaxation.tolerance))
    return Settled(final, whole.steps, whole.residual, whole.settled, whole.diverged, period_two)
