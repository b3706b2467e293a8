"""Exact references for small networks: the dense Jacobian, solves with it, and backprop through the unrolled sweeps."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.eqprop.dynamics import Relaxation, sweep
from fklit.eqprop.fields import Linearized, NetworkField
from fklit.eqprop.state import State

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork

LARGEST = 2000
"""Neurons up to which a dense Jacobian is made."""


def flatten_state(state: State) -> Float[Tensor, "samples neurons"]:
    """All populations of a sample in one row."""
    return torch.cat([part.flatten(1) for part in state], 1)


def unflatten_state(rows: Float[Tensor, "samples neurons"], like: State) -> State:
    """The inverse of :func:`flatten_state`."""
    parts = torch.split(rows, [part[0].numel() for part in like], 1)
    return tuple(part.reshape(-1, *shape.shape[1:]) for part, shape in zip(parts, like, strict=True))


def recurrent_jacobian(network: "EquilibriumNetwork", state: State) -> Float[Tensor, "samples neurons neurons"]:
    """Derivative of the recurrent input with respect to the activities, one matrix a sample.

    Raises:
        ValueError: If the network has more than 2,000 neurons.
    """
    neurons = network.num_neurons
    if neurons > LARGEST:
        raise ValueError(
            f"The network has {neurons} neurons; a dense Jacobian is made up to {LARGEST}. Use RecurrentBackprop."
        )
    basis = torch.eye(neurons, dtype=state[0].dtype, device=state[0].device)
    matrices = []
    for i in range(len(state[0])):
        directions = unflatten_state(basis, state)
        products = Linearized(network, tuple(part[i : i + 1] for part in state)).forwards(directions)
        full = tuple(products.get(k, torch.zeros_like(part)) for k, part in enumerate(directions))
        matrices.append(flatten_state(full).T)
    return torch.stack(matrices)


def equilibrium_jacobian(
    network: "EquilibriumNetwork", equilibrium: "Equilibrium"
) -> Float[Tensor, "samples neurons neurons"]:
    """``J = H' - D^-1``: the Jacobian of the force in activity coordinates, symmetric for tied weights."""
    slopes = flatten_state(network.slopes(equilibrium.state, equilibrium.drive))
    return recurrent_jacobian(network, equilibrium.state) - torch.diag_embed(1 / slopes)


def dense_errors(network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: State) -> tuple[State, State]:
    """Solve for the response ``e = -J^-1 f`` and the true error vector ``delta = -J^-T f``.

    Args:
        network: Of at most 2,000 neurons.
        equilibrium: Its free equilibrium.
        force: f, derivative of the loss with respect to the activities.

    Returns:
        e and delta.
    """
    jacobian = equilibrium_jacobian(network, equilibrium)
    pull = flatten_state(force)
    e, delta = (torch.linalg.solve(m, -pull) for m in (jacobian, jacobian.mT))
    return unflatten_state(e, force), unflatten_state(delta, force)


def unrolled(network: "EquilibriumNetwork", x: Tensor, *, sweeps: int, relaxation: Relaxation | None = None) -> State:
    """Run sweeps from zero with autograd recording them all (backprop through time; memory grows with ``sweeps``).

    Args:
        network: The network.
        x: Input.
        sweeps: How many; every sample gets all of them.
        relaxation: Order and rate; None for the network's free phase.

    Returns:
        Activities of every population, with the exact gradient of these sweeps.
    """
    how = network.free if relaxation is None else relaxation
    field = NetworkField(network, network.drive(x))
    state = network.zero_state(len(x))
    for _ in range(sweeps):
        state = sweep(field, state, how)
    return state
