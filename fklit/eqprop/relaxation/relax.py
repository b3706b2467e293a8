"""Relaxation to a fixed point, in which each sample stops at its own residual.

The trajectory of a sample does not depend on the batch: it stops at its own first small change. Samples that do not
converge are counted and told apart (period two, diverged); nothing is replaced silently.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fklit.eqprop.network.state import State, per_row, pick_rows
from fklit.eqprop.relaxation.anderson import Anderson
from fklit.eqprop.relaxation.compiled import advance_of, going_on
from fklit.eqprop.relaxation.iteration import Field, change_of, iterate
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


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
    how = field.execution.compile
    advance = advance_of(how)
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
        proposal, change, inside = advance(field, point, relaxation, imaginary)
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
                chosen = going_on(active, left, how)
                rows = _with_parts(chosen, parts, len(samples))
                state, point = pick_rows(state, rows), pick_rows(point, rows)
                if memory is not None:
                    memory.select(chosen)
                field, samples, progress = field.select(chosen), samples[chosen], progress.select(chosen)
                active = active[chosen]
    if len(samples):
        keep()
        if detect_period_two:
            once = iterate(field, state, relaxation)
            twice = iterate(field, once, relaxation)
            single, double = change_of(once, state, parts), change_of(twice, state, parts)
            period_two[samples] = active & (double <= torch.clamp(0.01 * single, min=relaxation.tolerance))
    return RelaxationResult(final, whole.iterations, whole.residual, whole.converged, whole.diverged, period_two)
