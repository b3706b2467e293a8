"""Relaxation to a fixed point, in which each sample stops at its own residual.

The trajectory of a sample does not depend on the batch: it stops at its own first small change. Samples that do not
converge are counted and told apart (period two, diverged); nothing is replaced silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from fklit.eqprop.network.state import State, halves, per_row, pick_rows
from fklit.eqprop.relaxation.anderson import Anderson
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


class Field(Protocol):
    """What is relaxed: a map whose fixed point is wanted."""

    @property
    def parts(self) -> int:
        """Rows of a state for each sample: 1, or 2 if the state is split into real and imaginary half."""
        ...

    @property
    def colors(self) -> Sequence[Sequence[int]]:
        """Layers that may be updated together, in the order of a sequential iteration."""
        ...

    def update(self, state: State, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some layers."""
        ...

    def select(self, samples: Tensor) -> Self:
        """The same map for some of the samples only."""
        ...


def iterate(field: Field, state: State, relaxation: Relaxation) -> State:
    """Update every layer once. Differentiable if the field is."""
    colors = field.colors
    if relaxation.order == "synchronous":
        colors = [[layer for color in colors for layer in color]]
    current = list(state)
    for color in colors:
        for layer, value in field.update(tuple(current), color).items():
            if relaxation.rate < 1:
                value = torch.lerp(current[layer], value, relaxation.rate)
            current[layer] = value
    return tuple(current)


def _largest(sizes: Sequence[Tensor]) -> Tensor:
    """Largest entry of each row over all layers; NaN if one is NaN."""
    return torch.stack([size.amax(tuple(range(1, size.dim()))) for size in sizes]).amax(0)


def _moduli(state: Sequence[Tensor], parts: int) -> list[Tensor]:
    return [torch.hypot(*halves(part)) if parts == 2 else part.abs() for part in state]


def _imaginary(state: Sequence[Tensor], parts: int) -> list[Tensor]:
    return [halves(part)[1].abs() if parts == 2 else part.imag.abs() for part in state]


def _change(new: State, old: State, parts: int, imaginary: bool = False) -> Tensor:
    differences = [a - b for a, b in zip(new, old, strict=True)]
    return _largest((_imaginary if imaginary else _moduli)(differences, parts))


def _with_parts(samples: Tensor, parts: int, total: int) -> Tensor:
    """Rows of a state that belong to some samples."""
    return torch.cat([samples + part * total for part in range(parts)]) if parts > 1 else samples


@dataclass
class _Progress:
    """How some samples stand so far; the entries of `RelaxationResult`."""

    iterations: Tensor
    residual: Tensor
    converged: Tensor
    diverged: Tensor

    @classmethod
    def start(cls, samples: int, like: Tensor) -> Self:
        no = torch.zeros(samples, dtype=torch.bool, device=like.device)
        residual = torch.full((samples,), torch.inf, dtype=like.real.dtype, device=like.device)
        return cls(torch.zeros(samples, dtype=torch.long, device=like.device), residual, no, no.clone())

    def tensors(self) -> tuple[Tensor, ...]:
        return self.iterations, self.residual, self.converged, self.diverged

    def select(self, rows: Tensor) -> Self:
        return type(self)(*(tensor[rows] for tensor in self.tensors()))

    def write(self, whole: Self, samples: Tensor) -> None:
        for target, tensor in zip(whole.tensors(), self.tensors(), strict=True):
            target[samples] = tensor


@torch.no_grad()
@full_precision()
def relax(
    field: Field, start: State, relaxation: Relaxation, *, detect_period_two: bool = False, imaginary: bool = False
) -> RelaxationResult:
    """Iterate every sample until it converges, diverges, or `max_iterations` are over.

    Args:
        field: The map.
        start: First state, not changed.
        relaxation: Order, tolerance and limits.
        detect_period_two: Tell by two more iterations which of the samples that have not converged alternate between
            two states.
        imaginary: Take the residual of the imaginary parts only. They may be tiny: the rounding of real parts in single
            precision alone is larger than a tolerance on their scale.
    """
    parts = field.parts
    total = len(start[0]) // parts
    device = start[0].device
    check_every = relaxation.check_every or (1 if device.type == "cpu" else 5)
    final, whole = tuple(part.clone() for part in start), _Progress.start(total, start[0])
    period_two = torch.zeros_like(whole.converged)

    # The working batch: its state, which samples it holds, which of them still change, and their progress. The next
    # iteration starts from `point`, which is the state unless it was extrapolated.
    state, samples = start, torch.arange(total, device=device)
    point, window = start, relaxation.anderson_window
    memory = Anderson(window, relaxation.anderson_damping, parts=parts, imaginary=imaginary) if window else None
    active, progress = torch.ones_like(whole.converged), whole.select(samples)

    def keep() -> None:
        rows = _with_parts(samples, parts, total)
        for target, part in zip(final, state, strict=True):
            target[rows] = part
        progress.write(whole, samples)

    for iteration in range(1, relaxation.max_iterations + 1):
        proposal = iterate(field, point, relaxation)
        change = _change(proposal, point, parts, imaginary)
        if relaxation.rate < 1:
            change = change / relaxation.rate
        inside = _largest(_moduli(proposal, parts)) <= relaxation.bound  # False for NaN
        commit = active & inside
        refused = None if memory is None else memory.refuse(point, proposal, inside)
        if refused is not None:
            refused = refused & active
            commit = commit & ~refused
        check = iteration % check_every == 0 or iteration == relaxation.max_iterations
        if check and bool(commit.all()):
            state, progress.residual, refused = proposal, change, None
        else:
            mask = commit.repeat(parts)
            state = tuple(torch.where(per_row(mask, new), new, old) for new, old in zip(proposal, state, strict=True))
            going = commit if refused is None else commit | refused
            unchanged = ~active if refused is None else ~active | refused
            progress.residual = torch.where(commit, change, torch.where(unchanged, progress.residual, torch.inf))
            progress.diverged = progress.diverged | (active & ~going)
        progress.iterations = progress.iterations + active
        stopped = commit & (change < relaxation.tolerance)
        progress.converged = progress.converged | stopped
        active = commit & ~stopped if refused is None else (commit & ~stopped) | refused
        point = state if memory is None else memory.next_point(state, refused)
        if check:
            left = int(active.sum())
            if left == 0 or 2 * left <= len(samples):  # a batch of half the size pays for the copies
                keep()
                if left == 0:
                    samples = samples[:0]
                    break
                chosen = active.nonzero().squeeze(1)
                rows = _with_parts(chosen, parts, len(samples))
                state, point = pick_rows(state, rows), pick_rows(point, rows)
                if memory is not None:
                    memory.select(chosen)
                field, samples, progress = field.select(chosen), samples[chosen], progress.select(chosen)
                active = torch.ones_like(progress.converged)
    if len(samples):
        keep()
        if detect_period_two:
            once = iterate(field, state, relaxation)
            twice = iterate(field, once, relaxation)
            single, double = _change(once, state, parts), _change(twice, state, parts)
            period_two[samples] = active & (double <= torch.clamp(0.01 * single, min=relaxation.tolerance))
    return RelaxationResult(final, whole.iterations, whole.residual, whole.converged, whole.diverged, period_two)
