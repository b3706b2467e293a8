"""The linear response to a constant force, in the precision that the network asks for."""

from dataclasses import replace

import torch

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, scale_rows
from fklit.eqprop.relaxation.fields import ResponseField
from fklit.eqprop.relaxation.free_phase import coarse, unless_diverged
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import Equilibrium, RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


def relax_response(
    network: RecurrentNetwork, equilibrium: Equilibrium, force: State, relaxation: Relaxation, *, transposed: bool
) -> RelaxationResult:
    """Relax the linearized network under a constant force, from zero.

    Args:
        network: The network; its `execution.response_precision` says in which precision the iterations begin.
        equilibrium: Where it is linearized.
        force: Of each layer.
        relaxation: Order, tolerance and limits.
        transposed: Whether the derivative is transposed.

    Returns:
        The result in full precision; its iterations count those of the low precision, too.
    """
    state, drive = equilibrium.state, equilibrium.drive
    field = ResponseField(network, state, drive, force, transposed=transposed)
    start = tuple(torch.zeros_like(part) for part in state)
    if network.execution.response_precision == "full":
        return relax(field, start, relaxation)
    # The response is linear in the force, so each sample's force is scaled to a largest entry of 1: the response is
    # then of order one, and its changes of a few units in the last place are rounding.
    size = torch.stack([part.abs().flatten(1).amax(1) for part in force]).amax(0)
    unit = scale_rows(force, torch.where(size > 0, 1 / size, 0.0))
    low = [tuple(part.bfloat16() for part in parts) for parts in (state, drive, unit)]
    coarse_field = ResponseField(network, *low, transposed=transposed)
    tolerance = 4 * torch.finfo(torch.bfloat16).eps
    first = relax(coarse_field, tuple(part.bfloat16() for part in start), coarse(relaxation, tolerance=tolerance))
    fine = relax(field, scale_rows(unless_diverged(first, start), size), relaxation)
    return replace(fine, iterations=fine.iterations + first.iterations)
