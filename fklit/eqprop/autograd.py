"""Equilibrium propagation as the backward pass of one autograd function.

Forward hands out a settled state; backward takes what comes back from the loss as the nudge, measures the response e,
and returns one vector-Jacobian product of the input with cotangent e (the local learning rule). Optimizers, clipping,
accumulation, gradient scaling and the hooks of distributed training then work as for any module, and the memory does
not depend on the number of sweeps.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fklit.eqprop.nudges import Nudge
from fklit.eqprop.responses import Response, constant_force
from fklit.eqprop.state import State, blank_rows, per_row, row_dots, row_norms, scale_rows

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork


@dataclass(frozen=True)
class _Call:
    """What the function needs besides tensors."""

    network: "EquilibriumNetwork"
    equilibrium: "Equilibrium"
    nudge: Nudge | None
    record: list[Response] | None
    names: tuple[str, ...]


class _Inputs(nn.Module):
    """Total input of each population as a module, so that it can be called with other tensors as weights."""

    def __init__(self, network: "EquilibriumNetwork") -> None:
        super().__init__()
        self.network = network

    def forward(self, state: State, x: Tensor) -> State:
        drive, recurrent = self.network.drive(x), self.network.recurrent(state)
        return tuple(part + recurrent[i] if i in recurrent else part for i, part in enumerate(drive))


def credit(
    network: "EquilibriumNetwork", state: State, x: Tensor, error: State, weights: dict[str, Tensor], *, to_input: bool
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The local rule: gradient of ``<error, input(state, x; weights)>``, summed over samples.

    Args:
        network: Whose connections.
        state: Activities at which the weights are credited.
        x: Input.
        error: Error vector, one row a sample.
        weights: By name as in ``network.named_parameters()``.
        to_input: Whether x gets a gradient, too.

    Returns:
        Gradient of each weight that has an effect, and of x or None.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    x = x.detach().requires_grad_(to_input)
    with torch.enable_grad():
        called = {f"network.{name}": leaf for name, leaf in leaves.items()}
        inputs = torch.func.functional_call(_Inputs(network), called, (state, x))
        wanted = [*leaves.values(), x] if to_input else list(leaves.values())
        pairs = [(h, e) for h, e in zip(inputs, error, strict=True) if h.requires_grad]
        gradients = torch.autograd.grad([h for h, _ in pairs], wanted, [e for _, e in pairs], allow_unused=True)
    found = {name: g for name, g in zip(leaves, gradients, strict=False) if g is not None}
    return found, gradients[-1] if to_input else None


def _force(call: _Call, cotangents: State) -> tuple[State | Nudge, Tensor]:
    """The nudge and the factor for each sample that turns its response into the gradient's error vector."""
    network = call.network
    if call.nudge is None:
        size = row_norms(cotangents)
        inverse = torch.where(size > 0, 1 / size, 0.0)
        return scale_rows(cotangents, inverse), size
    pull = constant_force(network, call.equilibrium, call.nudge)
    square = row_dots(pull, pull)
    factor = torch.where(square > 0, row_dots(cotangents, pull) / square, 0.0)
    rest = row_norms([c - p for c, p in zip(cotangents, scale_rows(pull, factor), strict=True)])
    # The force on a confident sample is lost in rounding: it weighs nothing and tells nothing about the loss.
    scale = 1.0 if network.readout is None else network.readout.weight.detach().norm()
    telling = square.sqrt() > 1e4 * torch.finfo(square.dtype).eps * scale
    if bool((telling & (rest > 1e-2 * row_norms(cotangents))).any()):
        raise ValueError(
            f"The loss that was differentiated is not the one of {type(call.nudge).__name__} up to a factor for each "
            "sample; use the same loss and target, or leave out the nudge."
        )
    return call.nudge, factor


class _EquilibriumFunction(torch.autograd.Function):
    """See the module's description."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, *tensors: Tensor) -> State:
        count = len(call.equilibrium.state)
        ctx.call = call
        ctx.save_for_backward(x, *tensors[count:])
        return tuple(part.clone() for part in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        x, *weights = ctx.saved_tensors
        network, equilibrium = call.network, call.equilibrium
        with torch.autocast(x.device.type, enabled=False):
            force, factor = _force(call, cotangents)
            response = network.estimator.respond(network, equilibrium, force)
            if call.record is not None:
                call.record.append(response)
            dropped = equilibrium.report.diverged | response.diverged
            if network.unsettled == "drop":
                dropped = dropped | ~equilibrium.report.settled
            factor = torch.where(dropped, 0.0, factor)
            error = tuple(part * per_row(factor, part) for part in response.error)
            state = equilibrium.state if response.point is None else response.point
            named = {
                name: weight
                for name, weight, needed in zip(
                    call.names, weights, ctx.needs_input_grad[2 + len(equilibrium.state) :], strict=True
                )
                if needed
            }
            to_input = bool(ctx.needs_input_grad[1])
            given = blank_rows(dropped, equilibrium.x)  # it may be why the sample diverged
            gradients, input_gradient = credit(network, state, given, error, named, to_input=to_input)
        if input_gradient is not None:
            input_gradient = input_gradient.to(x.dtype)
        return None, input_gradient, *[None] * len(equilibrium.state), *[gradients.get(name) for name in call.names]


def attach(
    network: "EquilibriumNetwork",
    equilibrium: "Equilibrium",
    *,
    x: Tensor | None = None,
    nudge: Nudge | None = None,
    record: list[Response] | None = None,
) -> State:
    """Activities of a free equilibrium with the gradient of equilibrium propagation.

    Args:
        network: The network.
        equilibrium: Its free equilibrium.
        x: The input, if it is to receive a gradient.
        nudge: None for the loss's own gradient as a constant nudge of norm 1, or a loss followed along the trajectory.
        record: Where the backward pass puts its response.
    """
    named = {name: weight for name, weight in network.named_parameters() if not name.startswith("readout.")}
    call = _Call(network, equilibrium, nudge, record, tuple(named))
    source = equilibrium.x if x is None else x
    return tuple(_EquilibriumFunction.apply(call, source, *equilibrium.state, *named.values()))
