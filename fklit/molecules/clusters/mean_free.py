"""The mean-free space of a cluster: exact coordinates for particles whose center stays at the origin."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.checks import check_count


def mean_free_basis(num_particles: int) -> Float[Tensor, "n m"]:
    """Return an orthonormal basis (n, n - 1), float64, of the vectors of n entries that sum to 0 (Helmert 1876).

    Args:
        num_particles: n, at least 2.

    Raises:
        ValueError: for fewer than two.
    """
    if check_count("num_particles", num_particles) < 2:
        raise ValueError(f"expected num_particles of at least 2, got {num_particles}; one particle has no distances.")
    basis = torch.zeros(num_particles, num_particles - 1, dtype=torch.float64)
    for k in range(1, num_particles):  # the first k entries against entry k + 1
        basis[:k, k - 1] = 1 / math.sqrt(k * (k + 1))
        basis[k, k - 1] = -k / math.sqrt(k * (k + 1))
    return basis


class MeanFreeSpace:
    """Coordinates of n particles in D dimensions without their center: vectors of (n - 1) D numbers.

    The map to positions is an isometry, so that standard normal coordinates are standard normal positions projected on
    the mean-free ones, and densities, scores and noise levels are the same in both. Samplers and networks of vectors
    then need to know nothing of centers. The n - 1 numbers of one axis of space stand side by side.

    Args:
        num_particles: n, at least 2.
        space_dim: D, at least 1.

    Attributes:
        dim: length of the coordinates, (n - 1) D.
        num_pairs: n (n - 1) / 2.
    """

    def __init__(self, num_particles: int, space_dim: int = 3) -> None:
        self.basis = mean_free_basis(num_particles)
        self.num_particles, self.space_dim = int(num_particles), check_count("space_dim", space_dim)
        self.dim = (self.num_particles - 1) * self.space_dim
        first, second = torch.triu_indices(self.num_particles, self.num_particles, offset=1)
        self.num_pairs = len(first)
        # Row p of the incidence matrix holds +1 at the first particle of pair p and -1 at the second.
        self.incidence = torch.zeros(self.num_pairs, self.num_particles, dtype=torch.float64)
        self.incidence[torch.arange(self.num_pairs), first] = 1.0
        self.incidence[torch.arange(self.num_pairs), second] = -1.0
        self._pairs = self.incidence @ self.basis  # (P, n - 1): from coordinates to differences of pairs

    def to_positions(self, coordinates: Float[Tensor, "*b d"]) -> Float[Tensor, "*b n s"]:
        """Return positions (..., n, D), whose mean over the particles is 0."""
        return (self._rows(coordinates) @ self.basis.T.to(coordinates)).transpose(-1, -2)

    def to_coordinates(self, positions: Float[Tensor, "*b n s"]) -> Float[Tensor, "*b d"]:
        """Return coordinates (..., (n - 1) D) of positions around any center, which is lost.

        Raises:
            ValueError: for another number of particles or dimensions.
        """
        if positions.shape[-2:] != (self.num_particles, self.space_dim):
            raise ValueError(
                f"expected positions (..., {self.num_particles}, {self.space_dim}), got {tuple(positions.shape)}; give "
                "a row for each particle."
            )
        return (positions.transpose(-1, -2) @ self.basis.to(positions)).flatten(-2)

    def pair_vectors(self, coordinates: Float[Tensor, "*b d"]) -> Float[Tensor, "*b s p"]:
        """Return `x_i - x_j` of all pairs i < j, (..., D, P)."""
        return self._rows(coordinates) @ self._pairs.T.to(coordinates)

    def pair_distances(self, coordinates: Float[Tensor, "*b d"]) -> Float[Tensor, "*b p"]:
        """Return the distances of all pairs i < j, (..., P)."""
        distances: Tensor = torch.linalg.vector_norm(self.pair_vectors(coordinates), dim=-2)
        return distances

    def sum_over_pairs(self, vectors: Float[Tensor, "*b s p"]) -> Float[Tensor, "*b d"]:
        """Return the transpose of `pair_vectors`: what a gradient by pair differences is by coordinates.

        Args:
            vectors: one for each pair, (..., D, P).
        """
        summed: Tensor = vectors @ self._pairs.to(vectors)
        return summed.flatten(-2)

    def check(self, coordinates: Float[Tensor, "*b d"]) -> None:
        """Refuse coordinates of another system.

        Raises:
            ValueError: for another length than `dim`.
        """
        if coordinates.shape[-1:] != (self.dim,):
            raise ValueError(
                f"expected coordinates (..., {self.dim}), got {tuple(coordinates.shape)}; they are of "
                f"{self.num_particles} particles in {self.space_dim} dimensions without their center."
            )

    def _rows(self, coordinates: Tensor) -> Tensor:
        self.check(coordinates)
        return coordinates.reshape(*coordinates.shape[:-1], self.space_dim, self.num_particles - 1)
