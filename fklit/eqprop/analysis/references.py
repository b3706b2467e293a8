"""Exact references for small networks: the dense Jacobian, solves with it, and backprop through unrolled iterations."""

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, fill_layers
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.iteration import iterate
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.relaxation.settings import Relaxation

LARGEST = 2000
"""Neurons up to which a dense Jacobian is made."""


def flatten_state(state: State) -> Float[Tensor, "samples neurons"]:
    """All layers of a sample in one row."""
    return torch.cat([part.flatten(1) for part in state], 1)


def unflatten_state(rows: Float[Tensor, "samples neurons"], like: State) -> State:
    """The inverse of `flatten_state`."""
    parts = torch.split(rows, [part[0].numel() for part in like], 1)
    return tuple(part.reshape(-1, *shape.shape[1:]) for part, shape in zip(parts, like, strict=True))


def recurrent_jacobian(network: RecurrentNetwork, state: State) -> Float[Tensor, "samples neurons neurons"]:
    """Derivative of the recurrent input with respect to the activities, one matrix a sample.

    Raises:
        ValueError: If the network has more than 2,000 neurons.
    """
    neurons = network.num_neurons
    if neurons > LARGEST:
        raise ValueError(
            f"expected at most {LARGEST} neurons for a dense Jacobian, got {neurons}; use RecurrentBackprop."
        )
    basis = torch.eye(neurons, dtype=state[0].dtype, device=state[0].device)
    matrices = []
    for i in range(len(state[0])):
        directions = unflatten_state(basis, state)
        products = LinearizedRecurrence(network, tuple(part[i : i + 1] for part in state)).jvp(directions)
        matrices.append(flatten_state(fill_layers(products, directions)).T)
    return torch.stack(matrices)


def equilibrium_jacobian(
    network: RecurrentNetwork, equilibrium: Equilibrium
) -> Float[Tensor, "samples neurons neurons"]:
    """`J = H' - D^-1`: the Jacobian of the force in activity coordinates, symmetric for tied weights."""
    slopes = flatten_state(network.slopes(equilibrium.state, equilibrium.drive))
    return recurrent_jacobian(network, equilibrium.state) - torch.diag_embed(1 / slopes)


def dense_errors(network: RecurrentNetwork, equilibrium: Equilibrium, force: State) -> tuple[State, State]:
    """Solve for the response `e = -J^-1 f` and the true error vector `delta = -J^-T f`.

    Args:
        network: Of at most 2,000 neurons.
        equilibrium: Its free equilibrium.
        force: f, derivative of the loss with respect to the activities.

    Returns:
        e and delta.
    """
    jacobian = equilibrium_jacobian(network, equilibrium)
    f = flatten_state(force)
    e, delta = (torch.linalg.solve(m, -f) for m in (jacobian, jacobian.mT))
    return unflatten_state(e, force), unflatten_state(delta, force)


def unrolled(network: EquilibriumNetwork, x: Tensor, *, iterations: int, relaxation: Relaxation | None = None) -> State:
    """Iterate from zero with autograd recording every iteration: backprop through time, whose memory grows with them.

    Args:
        network: The network.
        x: Input.
        iterations: How many; every sample gets all of them.
        relaxation: Order and rate; None for the network's free phase.

    Returns:
        Activities of every layer, with the exact gradient of these iterations.
    """
    how = network.free if relaxation is None else relaxation
    field = NetworkField(network, network.drive(x))
    state = network.zero_state(len(x))
    for _ in range(iterations):
        state = iterate(field, state, how)
    return state
