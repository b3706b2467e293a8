"""The free phase: relaxation without a nudge, in the precision that the network asks for."""

from dataclasses import replace

import torch

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, per_row
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


def coarse(relaxation: Relaxation, *, tolerance: float) -> Relaxation:
    """Of the iterations in a low precision: half of them, and no acceleration, which lives of small differences."""
    iterations = (relaxation.max_iterations + 1) // 2
    return replace(relaxation, anderson_window=0, anderson_damping=1.0, tolerance=tolerance, max_iterations=iterations)


def unless_diverged(result: RelaxationResult, start: State) -> State:
    """What a low precision reached, in the number format of the start, which it is for samples that diverged."""
    pairs = zip(result.state, start, strict=True)
    return tuple(torch.where(per_row(result.diverged, old), old, new.to(old.dtype)) for new, old in pairs)


def relax_free(network: RecurrentNetwork, drive: State, start: State, relaxation: Relaxation) -> RelaxationResult:
    """Relax without a nudge.

    Args:
        network: The network; its `execution.free_precision` says in which precision the iterations begin.
        drive: Static input of each layer.
        start: First activities.
        relaxation: Order, tolerance and limits.

    Returns:
        The result in full precision; its iterations count those of the low precision, too.
    """
    field = NetworkField(network, drive)
    low = network.execution.free_precision
    if low == "full":
        return relax(field, start, relaxation, detect_period_two=True)
    dtype = torch.bfloat16 if low == "bfloat16" else torch.float16
    # Activities are of order one, so changes of two units in the last place are rounding.
    coarse_relaxation = coarse(relaxation, tolerance=max(relaxation.tolerance, 2 * torch.finfo(dtype).eps))
    coarse_field = NetworkField(network, tuple(part.to(dtype) for part in drive))
    first = relax(coarse_field, tuple(part.to(dtype) for part in start), coarse_relaxation)
    fine = relax(field, unless_diverged(first, start), relaxation, detect_period_two=True)
    return replace(fine, iterations=fine.iterations + first.iterations)
