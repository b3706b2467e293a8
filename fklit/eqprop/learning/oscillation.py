"""A slowly oscillating nudge: the phases of a sample one after another, until it repeats itself."""

from collections.abc import Sequence

import torch

from fklit.eqprop.network.state import State, pick_rows
from fklit.eqprop.relaxation.iteration import Field, change_of
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


def oscillate(
    fields: Sequence[Field], start: State, relaxation: Relaxation, num_periods: int
) -> list[RelaxationResult]:
    """Relax in one phase after the other, each from where the last one ended, for a number of periods.

    What a sample does after a phase depends on its state there alone. So it is done when it is where it was a period
    before: if the periods that are left would not move an activity by more than the tolerance at the change of this
    one.

    Args:
        fields: Of the phases of a period, split.
        start: Split state before the first phase, not changed.
        relaxation: Of a phase. Samples that converge wait for the next one; with a tolerance of 0 all iterations of all
            phases run.
        num_periods: Number of periods.

    Returns:
        One result of all samples for each phase, as many as the slowest sample needed. A sample that was done before
        repeats its last period in them, in 0 iterations.
    """
    samples, period = len(start[0]) // 2, len(fields)
    results: list[RelaxationResult] = []
    going = torch.arange(samples, device=start[0].device)  # samples that are still iterated
    fields, state = list(fields), start
    for at in range(period * num_periods):
        result = relax(fields[at % period], state, relaxation)
        state = result.state
        if at < period:
            results.append(result)
            continue
        rows = torch.cat([going, going + samples])
        before = results[at - period]
        left = num_periods - at // period  # periods, this one included
        done = left * change_of(state, pick_rows(before.state, rows), 2) < relaxation.tolerance
        results.append(result if len(going) == samples else _with_repeats(result, going, rows, before))
        if done.all():
            break
        if done.any():
            chosen = (~done).nonzero().squeeze(1)
            state = pick_rows(state, torch.cat([chosen, chosen + len(going)]))
            fields, going = [field.select(chosen) for field in fields], going[chosen]
    return results


def _with_repeats(
    result: RelaxationResult, going: torch.Tensor, rows: torch.Tensor, before: RelaxationResult
) -> RelaxationResult:
    """The result of a phase for all samples: those that are not iterated repeat the one of a period before."""
    state = tuple(part.clone() for part in before.state)
    for whole, part in zip(state, result.state, strict=True):
        whole[rows] = part
    columns = {"iterations": torch.zeros_like(before.iterations)}
    for name in ("residual", "converged", "diverged", "period_two"):
        columns[name] = getattr(before, name).clone()
    for name, whole in columns.items():
        whole[going] = getattr(result, name)
    return RelaxationResult(state, **columns)
