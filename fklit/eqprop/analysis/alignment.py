"""How far equilibrium propagation is from backpropagation: error vectors, gradients, symmetry, weight angles."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fklit.eqprop.analysis.references import recurrent_jacobian
from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.autograd import local_gradients
from fklit.eqprop.learning.estimators import ExactResponse, RecurrentBackprop
from fklit.eqprop.learning.homeostasis import draw_probes
from fklit.eqprop.learning.responses import Estimator
from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.residual import ResidualLink
from fklit.eqprop.network.state import State, fill_layers, pick_rows, row_norms, scale_rows, zero_rows
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.relaxation.settings import Relaxation


@dataclass(frozen=True)
class ErrorVectors:
    """Both error vectors of a batch and the gradients they give.

    Attributes:
        error: e of equilibrium propagation, for each layer.
        reference: The true error vector delta.
        usable: Samples whose free phase and whose delta converged; the angles of the others mean nothing.
        gradients: Of each weight of the dynamics from e, summed over usable samples.
        reference_gradients: The same from delta.
    """

    error: State
    reference: State
    usable: Bool[Tensor, " samples"]
    gradients: dict[str, Tensor]
    reference_gradients: dict[str, Tensor]


@torch.no_grad()
def error_vectors(
    network: EquilibriumNetwork,
    equilibrium: Equilibrium,
    cotangents: State,
    *,
    estimator: Estimator | None = None,
    relaxation: Relaxation | None = None,
) -> ErrorVectors:
    """Compare the error vectors of equilibrium propagation and of recurrent backpropagation.

    Args:
        network: The network.
        equilibrium: A free equilibrium.
        cotangents: Derivative of each sample's loss with respect to the activities of every layer.
        estimator: Of e; None for the network's own, or for the exact response if the network's own is recurrent
            backpropagation.
        relaxation: Of delta; None for up to 400 iterations with tolerance 1e-6, with the cotangent scaled to norm 1.
    """
    if estimator is None:
        own = network.estimator
        estimator = ExactResponse() if isinstance(own, RecurrentBackprop) else own
    size = row_norms(cotangents)
    force = scale_rows(cotangents, torch.where(size > 0, 1 / size, 0.0))
    how = Relaxation(max_iterations=400, tolerance=1e-6) if relaxation is None else relaxation
    response = estimator.respond(network, equilibrium, force)
    truth = RecurrentBackprop(relaxation=how).respond(network, equilibrium, force)
    usable = equilibrium.result.converged & truth.results[0].converged & ~response.diverged
    weights = network.dynamics_parameters()
    state, factor = equilibrium.state, torch.where(usable, size, 0.0)
    error, reference = (scale_rows(vector, size) for vector in (response.error, truth.error))
    x = zero_rows(~usable, equilibrium.x)
    found = [
        local_gradients(network, state, x, scale_rows(vector, factor), weights, to_input=False)[0]
        for vector in (response.error, truth.error)
    ]
    return ErrorVectors(error, reference, usable, *found)


@torch.no_grad()
def symmetry_score(
    network: RecurrentNetwork,
    equilibrium: Equilibrium,
    *,
    samples: int = 4,
    exact_up_to: int = 1000,
    probes: int = 100,
    seed: int = 0,
) -> Float[Tensor, ""]:
    """`||S|| / (||S|| + ||A||)` for the symmetric and antisymmetric part of `H' - 1`: 1 symmetric, 0.5 random.

    Args:
        network: The network.
        equilibrium: A free equilibrium; its first samples are averaged over.
        samples: How many.
        exact_up_to: Neurons up to which the Jacobian is made; beyond, norms are estimated from random directions.
        probes: Directions for each sample.
        seed: Of the directions.
    """
    count = min(samples, len(equilibrium.x))
    state = pick_rows(equilibrium.state, torch.arange(count, device=equilibrium.x.device))
    if network.num_neurons <= exact_up_to:
        jacobian = recurrent_jacobian(network, state)
        jacobian = jacobian - torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
        s = (jacobian + jacobian.mT).flatten(1).norm(dim=1)
        a = (jacobian - jacobian.mT).flatten(1).norm(dim=1)
        exact: Tensor = (s / (s + a)).mean()
        return exact
    drawn = draw_probes(network, range(count), probes=probes, seed=seed, device=equilibrium.x.device)
    v = tuple(part.to(equilibrium.x.dtype) for part in drawn)
    linear = LinearizedRecurrence(network, state)
    # J v and J^T v for J = H' - 1
    products, transposed = (
        tuple(product - part for product, part in zip(fill_layers(found, v), v, strict=True))
        for found in (linear.jvp(v), linear.vjp(v))
    )
    s, a = (
        row_norms([left + sign * right for left, right in zip(products, transposed, strict=True)])
        .square()
        .view(probes, count)
        .mean(0)
        .sqrt()
        for sign in (1, -1)
    )
    return (s / (s + a)).mean()


@torch.no_grad()
def weight_angles(network: RecurrentNetwork) -> dict[str, float]:
    """Degrees between forward and backward weights of each reciprocal link that has any: 0 aligned, 90 independent."""
    angles = {}
    for name, (pre, _) in network.ends.items():
        link = network.link(name)
        if pre < 0 or not link.reciprocal or isinstance(link, ResidualLink):
            continue
        forward, backward = link.forward_weight.double(), link.aligned_backward_weight().double()
        cosine = float((forward * backward).sum() / (forward.norm() * backward.norm()).clamp_min(1e-300))
        angles[name] = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return angles
