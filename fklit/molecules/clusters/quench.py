"""Inherent structures: the minimum of the energy below each sample, and how often each is occupied."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.checks import check_count
from fklit.molecules.clusters.energy import ClusterEnergy

_LARGEST_MOVE = 0.1  # of the coordinates' norm, in one step


@dataclass(frozen=True)
class Quenched:
    """Minima.

    Attributes:
        coordinates: (..., d).
        energy: (...).
        converged: (...) bool, whether the gradient's norm came below the tolerance.
    """

    coordinates: Float[Tensor, "*b d"]
    energy: Float[Tensor, "*b"]
    converged: Tensor


@torch.no_grad()
def quench(
    system: ClusterEnergy, coordinates: Float[Tensor, "*b d"], *, num_steps: int = 2000, tolerance: float = 1e-5
) -> Quenched:
    """Run every sample down to a minimum by FIRE (Bitzek et al. 2006), all at once and each with its own step.

    Args:
        system: the energy.
        coordinates: where to start, (..., d).
        num_steps: most steps.
        tolerance: norm of the gradient at which a sample is done.
    """
    check_count("num_steps", num_steps)
    x = coordinates.double()
    gradient = system.energy_and_gradient(x)[1]
    velocity = torch.zeros_like(x)
    step, mixing = torch.full_like(x[..., :1], 0.01), torch.full_like(x[..., :1], 0.1)
    uphill_free = torch.zeros_like(step)  # steps since the last uphill one
    for _ in range(num_steps):
        force = -torch.nan_to_num(gradient, nan=0.0, posinf=1e30, neginf=-1e30)
        size = force.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        if bool((size < tolerance).all()):
            break
        downhill = (force * velocity).sum(dim=-1, keepdim=True) > 0
        uphill_free = torch.where(downhill, uphill_free + 1, 0.0)
        # Faster after five steps downhill; stopped and slower after one uphill.
        grow = uphill_free > 5
        step = torch.where(downhill, torch.where(grow, 1.1 * step, step).clamp(max=0.1), 0.5 * step)
        mixing = torch.where(downhill, torch.where(grow, 0.99 * mixing, mixing), 0.1)
        steered = (1 - mixing) * velocity + mixing * force / size * velocity.norm(dim=-1, keepdim=True)
        velocity = torch.where(downhill, steered, 0.0) + step * force
        move = step * velocity
        length = move.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        shrink = (_LARGEST_MOVE / length).clamp(max=1.0)  # overlaps push with forces without bound
        velocity = velocity * shrink
        x = x + move * shrink
        gradient = system.energy_and_gradient(x)[1]
    energy, gradient = system.energy_and_gradient(x)
    return Quenched(x, energy, gradient.norm(dim=-1) < tolerance)


def occupation(energies: Float[Tensor, " n"], *, resolution: float = 1e-2) -> dict[float, float]:
    """Return the share of samples of each inherent structure, told apart by their energies, the lowest first.

    Args:
        energies: of quenched samples.
        resolution: energies are rounded to multiples of it.

    Raises:
        ValueError: for no samples, or a resolution that is not positive.
    """
    if energies.numel() == 0 or not resolution > 0:
        raise ValueError(
            f"expected energies and a positive resolution, got {energies.numel()} energies and {resolution}; quench "
            "some samples."
        )
    levels, counts = torch.unique((energies.double() / resolution).round(), return_counts=True)
    shares = (counts.double() / counts.sum()).tolist()
    return {round(level * resolution, 10): share for level, share in zip(levels.tolist(), shares, strict=True)}


def occupation_distance(first: dict[float, float], second: dict[float, float]) -> float:
    """Return the total variation between two occupations."""
    return 0.5 * sum(abs(first.get(level, 0.0) - second.get(level, 0.0)) for level in {*first, *second})
