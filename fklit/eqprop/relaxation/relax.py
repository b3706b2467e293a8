"""Relaxation to a fixed point, in which each sample stops at its own residual.

The trajectory of a sample does not depend on the batch: it stops at its own first small change. Samples that do not
converge are counted and told apart (period two, diverged); nothing is replaced silently.
"""

import torch
from torch import Tensor

from fklit.eqprop.network.state import State, pick_rows
from fklit.eqprop.relaxation.anderson import Anderson
from fklit.eqprop.relaxation.compiled import going_on, run_advance, run_several
from fklit.eqprop.relaxation.iteration import Field, change_of, iterate
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.progress import Progress, accept
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


def _with_parts(samples: Tensor, parts: int, total: int) -> Tensor:
    """Rows of a state that belong to some samples."""
    return torch.cat([samples + part * total for part in range(parts)]) if parts > 1 else samples


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
    how = field.execution.compile
    check_every = relaxation.check_every or (1 if device.type == "cpu" and how is False else 5)
    final, whole = tuple(part.clone() for part in start), Progress.start(total, start[0])
    period_two = torch.zeros_like(whole.converged)

    # The working batch: its state, which samples it holds, and their progress. An accelerated iteration starts from
    # `point`, which is the state unless it was extrapolated.
    state, samples, progress = start, torch.arange(total, device=device), Progress(*(part.clone() for part in whole))
    point, window = start, relaxation.anderson_window
    memory = Anderson(window, relaxation.anderson_damping, parts=parts, imaginary=imaginary) if window else None

    def keep() -> None:
        rows = _with_parts(samples, parts, total)
        for target, part in zip(final, state, strict=True):
            target[rows] = part
        progress.write(whole, samples)

    for done in range(0, relaxation.max_iterations, check_every):
        count = min(check_every, relaxation.max_iterations - done)
        if memory is None:
            state, progress = run_several(field, state, progress, relaxation, imaginary, count)
        else:
            for _ in range(count):
                image, change, inside = run_advance(field, point, relaxation, imaginary)
                refused = memory.refuse(point, image, inside)
                refused = None if refused is None else refused & progress.active
                state, progress = accept(
                    progress, state, image, change, inside,
                    tolerance=relaxation.tolerance, parts=parts, refused=refused,
                )  # fmt: skip
                point = memory.next_point(state, refused)
        left = int(progress.active.sum())
        if left == 0 or 2 * left <= len(samples):  # a batch of half the size pays for the copies
            keep()
            if left == 0:
                samples = samples[:0]
                break
            chosen = going_on(progress.active, left, how)
            rows = _with_parts(chosen, parts, len(samples))
            state = pick_rows(state, rows)
            if memory is not None:
                point = pick_rows(point, rows)
                memory.select(chosen)
            field, samples, progress = field.select(chosen), samples[chosen], progress.select(chosen)
    if len(samples):
        keep()
        if detect_period_two:
            once = iterate(field, state, relaxation)
            twice = iterate(field, once, relaxation)
            single, double = change_of(once, state, parts), change_of(twice, state, parts)
            period_two[samples] = progress.active & (double <= torch.clamp(0.01 * single, min=relaxation.tolerance))
    return RelaxationResult(final, whole.iterations, whole.residual, whole.converged, whole.diverged, period_two)
