"""How the samples of a batch stand while they are relaxed, and several iterations in which each stops by itself."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from fklit.eqprop.network.state import State, per_row
from fklit.eqprop.relaxation.iteration import Field, advance
from fklit.eqprop.relaxation.settings import Relaxation


class Progress(NamedTuple):
    """How each sample stands so far; all but the first are entries of `RelaxationResult`.

    Attributes:
        active: Samples that still change, `(samples,)` bool.
        iterations: That each took.
        residual: Of its last iteration.
        converged: Whether that was below the tolerance.
        diverged: Whether it left the bound.
    """

    active: Tensor
    iterations: Tensor
    residual: Tensor
    converged: Tensor
    diverged: Tensor

    @classmethod
    def start(cls, samples: int, like: Tensor) -> Self:
        """Before the first iteration.

        Args:
            samples: How many.
            like: For the device, and the number format of residuals.
        """
        no = torch.zeros(samples, dtype=torch.bool, device=like.device)
        residual = torch.full((samples,), torch.inf, dtype=like.real.dtype, device=like.device)
        return cls(~no, torch.zeros(samples, dtype=torch.long, device=like.device), residual, no, no.clone())

    def select(self, rows: Tensor) -> Self:
        """That of some samples."""
        return type(self)(*(tensor[rows] for tensor in self))

    def write(self, whole: Self, samples: Tensor) -> None:
        """Copy it to its places in that of all samples."""
        for target, tensor in zip(whole, self, strict=True):
            target[samples] = tensor


def accept(
    progress: Progress,
    state: State,
    proposal: State,
    change: Tensor,
    inside: Tensor,
    *,
    tolerance: float,
    parts: int,
    refused: Tensor | None = None,
) -> tuple[State, Progress]:
    """Take an iteration over for the samples that are active and within the bound.

    Args:
        progress: Before it.
        state: Activities before it.
        proposal: Activities after it.
        change: Residual of each sample.
        inside: Samples within the bound.
        tolerance: Below which a sample has converged.
        parts: Rows of a state for each sample.
        refused: Active samples that take nothing over and go on (of Anderson acceleration).
    """
    active = progress.active
    commit = active & inside if refused is None else active & inside & ~refused
    going = commit if refused is None else commit | refused
    # On a CPU to ask costs less than to copy
    if not torch.compiler.is_compiling() and commit.device.type == "cpu" and bool(commit.all()):
        state, residual, diverged = proposal, change, progress.diverged
    else:
        mask = commit.repeat(parts)
        state = tuple(torch.where(per_row(mask, new), new, old) for new, old in zip(proposal, state, strict=True))
        kept = ~active if refused is None else ~active | refused
        residual = torch.where(commit, change, torch.where(kept, progress.residual, torch.inf))
        diverged = progress.diverged | (active & ~going)
    stopped = commit & (change < tolerance)
    iterations, converged = progress.iterations + active, progress.converged | stopped
    return state, Progress(going & ~stopped, iterations, residual, converged, diverged)


def advance_several(
    field: Field, state: State, progress: Progress, relaxation: Relaxation, imaginary: bool, count: int
) -> tuple[State, Progress]:
    """Iterations in a row, and what each does to the samples that are still active: all that is compiled.

    Args:
        field: The map.
        state: Activities to start from.
        progress: Of the samples.
        relaxation: Order, rate, bound and tolerance.
        imaginary: Take the change of the imaginary parts only.
        count: How many.
    """
    for _ in range(count):
        proposal, change, inside = advance(field, state, relaxation, imaginary)
        state, progress = accept(
            progress, state, proposal, change, inside, tolerance=relaxation.tolerance, parts=field.parts
        )
    return state, progress
