"""Energies of clusters in mean-free coordinates, with their gradients in closed form."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.analytic.gaussian import GaussianMixture
from fklit.checks import check_non_negative
from fklit.molecules.clusters.mean_free import MeanFreeSpace


class ClusterEnergy(ABC):
    """An energy of n particles that no translation changes; at temperature T the law is `exp(-E / T)`.

    Attributes:
        space: the coordinates.
    """

    space: MeanFreeSpace

    @abstractmethod
    def energy_and_gradient(self, coordinates: Float[Tensor, "*b d"]) -> tuple[Float[Tensor, "*b"], Tensor]:
        """Return energies (...) and their gradients by the coordinates, (..., d), in the dtype of the coordinates."""

    def energy(self, coordinates: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Return energies (...)."""
        return self.energy_and_gradient(coordinates)[0]


class LennardJones(ClusterEnergy):
    """`sum_{i<j} epsilon ((r_min / r)^12 - 2 (r_min / r)^6) + trap / 2 sum_i |x_i - center|^2`.

    The system of arXiv 2503.02819, section 5.4: 13 particles, all constants 1. Pairs are counted once; code that sums
    over ordered pairs has twice the epsilon.

    Args:
        num_particles: n, at least 2.
        space_dim: D.
        epsilon: Depth of a pair's well, positive.
        r_min: Distance of the bottom of the well, positive.
        trap: Stiffness of the harmonic trap around the center, positive: without it the particles fly apart.

    Raises:
        ValueError: For constants that are not positive.
    """

    def __init__(
        self,
        num_particles: int = 13,
        space_dim: int = 3,
        *,
        epsilon: float = 1.0,
        r_min: float = 1.0,
        trap: float = 1.0,
    ) -> None:
        self.space = MeanFreeSpace(num_particles, space_dim)
        for name, value in (("epsilon", epsilon), ("r_min", r_min), ("trap", trap)):
            if not check_non_negative(name, value) > 0:
                raise ValueError(f"expected a positive {name}, got {value}; without it there is no law of a cluster.")
        self.num_particles, self.space_dim = num_particles, space_dim
        self.epsilon, self.r_min, self.trap = epsilon, r_min, trap

    def energy_and_gradient(self, coordinates: Float[Tensor, "*b d"]) -> tuple[Float[Tensor, "*b"], Tensor]:
        """Return energies and gradients: infinite and NaN where particles coincide."""
        vectors = self.space.pair_vectors(coordinates)
        inverse = self.r_min**2 / vectors.square().sum(dim=-2)
        sixth = inverse**3
        energy = self.epsilon * (sixth * (sixth - 2)).sum(dim=-1)
        energy = energy + 0.5 * self.trap * coordinates.square().sum(dim=-1)
        # dE/dr / r = -12 epsilon (s^12 - s^6) / r^2 with s = r_min / r.
        force = -12 * self.epsilon / self.r_min**2 * sixth * (sixth - 1) * inverse
        gradient = self.space.sum_over_pairs(force.unsqueeze(-2) * vectors) + self.trap * coordinates
        return energy, gradient


class HarmonicCluster(ClusterEnergy):
    """`1/2 sum_{i<j} spring_ij |x_i - x_j|^2 + trap / 2 sum_i |x_i - center|^2`: a Gaussian at every temperature.

    The ground truth of everything that runs on clusters.

    Args:
        springs: Stiffness of the pairs, a symmetric matrix (n, n) of entries of at least 0; its diagonal is ignored.
        space_dim: D.
        trap: Stiffness of the trap, positive.

    Raises:
        ValueError: For a matrix that is not symmetric, or negative stiffness.
    """

    def __init__(self, springs: Sequence[Sequence[float]], space_dim: int = 3, *, trap: float = 1.0) -> None:
        matrix = torch.as_tensor(springs, dtype=torch.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not torch.equal(matrix, matrix.T):
            raise ValueError(
                f"expected a symmetric matrix of springs (n, n), got one of shape {tuple(matrix.shape)}; give each "
                "pair one stiffness in both places."
            )
        if not bool((matrix >= 0).all()) or not check_non_negative("trap", trap) > 0:
            raise ValueError(
                f"expected springs of at least 0 and a positive trap, got a spring of {float(matrix.min()):g} and trap="
                f"{trap:g}; negative ones have no law."
            )
        self.space = MeanFreeSpace(len(matrix), space_dim)
        self.springs, self.space_dim, self.trap = matrix.tolist(), space_dim, trap
        # The Laplacian of the springs, from which the diagonal of the matrix falls out.
        laplacian = torch.diag(matrix.sum(dim=1)) - matrix
        inner = self.space.basis.T @ laplacian @ self.space.basis
        inner = 0.5 * (inner + inner.T) + trap * torch.eye(len(inner), dtype=torch.float64)
        self.stiffness = torch.kron(torch.eye(space_dim, dtype=torch.float64), inner)  # (d, d)

    def energy_and_gradient(self, coordinates: Float[Tensor, "*b d"]) -> tuple[Float[Tensor, "*b"], Tensor]:
        """Return energies and gradients."""
        self.space.check(coordinates)
        gradient = coordinates @ self.stiffness.to(coordinates)
        return 0.5 * (coordinates * gradient).sum(dim=-1), gradient

    def law(self, temperature: float) -> GaussianMixture:
        """Return the exact law at a temperature: one Gaussian of covariance `T stiffness^-1`."""
        covariance = temperature * torch.linalg.inv(self.stiffness)
        return GaussianMixture.single(torch.zeros(self.space.dim), 0.5 * (covariance + covariance.T))
