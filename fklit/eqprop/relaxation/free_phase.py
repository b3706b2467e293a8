"""The free phase: relaxation without a nudge, in the precision that the network asks for."""

from dataclasses import replace

import torch

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, per_row
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


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
    # Activities are of order one, so changes of two units in the last place are rounding. Differences of residuals, of
    # which an acceleration lives, are rounding long before.
    coarse_relaxation = replace(
        relaxation,
        anderson_window=0,
        anderson_damping=1.0,
        tolerance=max(relaxation.tolerance, 2 * torch.finfo(dtype).eps),
        max_iterations=(relaxation.max_iterations + 1) // 2,
    )
    coarse_field = NetworkField(network, tuple(part.to(dtype) for part in drive))
    coarse = relax(coarse_field, tuple(part.to(dtype) for part in start), coarse_relaxation)
    state = tuple(
        torch.where(per_row(coarse.diverged, old), old, new.to(old.dtype))
        for new, old in zip(coarse.state, start, strict=True)
    )
    fine = relax(field, state, relaxation, detect_period_two=True)
    return replace(fine, iterations=fine.iterations + coarse.iterations)
