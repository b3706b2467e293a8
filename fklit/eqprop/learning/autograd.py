"""Equilibrium propagation as the backward pass of one autograd function.

Forward returns a free equilibrium; backward takes the cotangents from the loss as the nudge, measures the response e,
and returns one vector-Jacobian product of the total input with cotangent e (the local learning rule). Optimizers,
clipping, accumulation, gradient scaling and the hooks of distributed training then work as for any module, and the
memory does not depend on the number of iterations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fklit.eqprop.learning.nudges import Nudge
from fklit.eqprop.learning.responses import Estimator, Response, constant_force
from fklit.eqprop.learning.unconverged import dropped_samples
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, per_row, row_dots, row_norms, scale_rows, zero_rows
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.result import Equilibrium, UnconvergedPolicy


@dataclass(frozen=True)
class _Call:
    """What the function needs besides tensors."""

    network: RecurrentNetwork
    equilibrium: Equilibrium
    estimator: Estimator
    unconverged: UnconvergedPolicy
    nudge: Nudge | None
    record: list[Response] | None
    names: tuple[str, ...]


class _TotalInput(nn.Module):
    """Total input of each layer as a module, so that it can be called with other tensors as weights."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, state: State, x: Tensor) -> State:
        return self.network.total_input(self.network.drive(x), state)


def local_gradients(
    network: RecurrentNetwork, state: State, x: Tensor, error: State, weights: Mapping[str, Tensor], *, to_input: bool
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The local rule: gradient of `<error, total input(state, x; weights)>`, summed over samples.

    Args:
        network: Whose connections.
        state: Activities at which the gradient is taken; constants.
        x: Input.
        error: Error vector, one row per sample.
        weights: By name as in `network.named_parameters()`.
        to_input: Whether x gets a gradient, too.

    Returns:
        Gradient of each weight that has an effect, and of x or None.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    x = x.detach().requires_grad_(to_input)
    with torch.enable_grad():
        called = {f"network.{name}": leaf for name, leaf in leaves.items()}
        inputs = torch.func.functional_call(_TotalInput(network), called, (state, x))
        wanted = [*leaves.values(), x] if to_input else list(leaves.values())
        pairs = [(h, e) for h, e in zip(inputs, error, strict=True) if h.requires_grad]
        gradients = torch.autograd.grad([h for h, _ in pairs], wanted, [e for _, e in pairs], allow_unused=True)
    found = {name: g for name, g in zip(leaves, gradients, strict=False) if g is not None}
    return found, gradients[-1] if to_input else None


def _nudge_and_scale(call: _Call, cotangents: State) -> tuple[State | Nudge, Tensor]:
    """The nudge, and the factor for each sample that scales its response to the error vector of the gradient."""
    if call.nudge is None:
        size = row_norms(cotangents)
        inverse = torch.where(size > 0, 1 / size, 0.0)
        return scale_rows(cotangents, inverse), size
    network = call.network
    force = constant_force(network, call.equilibrium, call.nudge)
    square = row_dots(force, force)
    factor = torch.where(square > 0, row_dots(cotangents, force) / square, 0.0)
    rest = row_norms([c - f for c, f in zip(cotangents, scale_rows(force, factor), strict=True)])
    # The force on a confident sample is lost in rounding: it does not matter and says nothing about the loss.
    scale = 1.0 if network.readout is None else network.readout.weight.detach().norm()
    significant = square.sqrt() > 1e4 * torch.finfo(square.dtype).eps * scale
    if bool((significant & (rest > 1e-2 * row_norms(cotangents))).any()):
        raise ValueError(
            f"expected the gradient of the loss of {type(call.nudge).__name__} up to a factor for each sample, got "
            "another one; differentiate the same loss with the same target, or leave out the nudge."
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
        with torch.autocast(x.device.type, enabled=False), full_precision():
            nudge, factor = _nudge_and_scale(call, cotangents)
            response = call.estimator.respond(network, equilibrium, nudge)
            if call.record is not None:
                call.record.append(response)
            dropped = dropped_samples(equilibrium, response, call.estimator, call.unconverged)
            factor = torch.where(dropped, 0.0, factor)
            error = tuple(part * per_row(factor, part) for part in response.error)
            state = equilibrium.state if response.gradient_state is None else response.gradient_state
            named = {
                name: weight
                for name, weight, needed in zip(
                    call.names, weights, ctx.needs_input_grad[2 + len(equilibrium.state) :], strict=True
                )
                if needed
            }
            to_input = bool(ctx.needs_input_grad[1])
            usable = zero_rows(dropped, equilibrium.x)  # the input may be why the sample diverged
            gradients, input_gradient = local_gradients(network, state, usable, error, named, to_input=to_input)
        if input_gradient is not None:
            input_gradient = input_gradient.to(x.dtype)
        return None, input_gradient, *[None] * len(equilibrium.state), *[gradients.get(name) for name in call.names]


def attach_gradient(
    network: RecurrentNetwork,
    equilibrium: Equilibrium,
    *,
    estimator: Estimator,
    unconverged: UnconvergedPolicy | None = None,
    x: Tensor | None = None,
    nudge: Nudge | None = None,
    record: list[Response] | None = None,
) -> State:
    """Activities of a free equilibrium with the gradient of equilibrium propagation.

    Args:
        network: The network.
        equilibrium: Its free equilibrium.
        estimator: Of the response to the nudge.
        unconverged: What is done with samples that have not converged, as in `EquilibriumNetwork`; None for the policy
            of the estimator.
        x: The input, if it is to receive a gradient.
        nudge: None for the loss's own gradient as a constant nudge of norm 1, or a loss whose gradient is followed
            along the trajectory.
        record: A list to which the backward pass appends its response.

    Returns:
        Activities of every layer, with gradient.
    """
    named = network.dynamics_parameters()
    policy = estimator.policy(unconverged)
    call = _Call(network, equilibrium, estimator, policy, nudge, record, tuple(named))
    source = equilibrium.x if x is None else x
    return tuple(_EquilibriumFunction.apply(call, source, *equilibrium.state, *named.values()))
