"""A denoiser of clusters that turns, reflects and permutes with them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit.correctors.targets.denoiser import FourierFeatures
from fklit.correctors.targets.denoiser_base import Denoiser
from fklit.molecules.clusters.mean_free import MeanFreeSpace


class ClusterDenoiser(Denoiser):
    """`D(x, sigma)`, an estimate of `E[x_0 | x_0 + sigma e = x]` for clusters in mean-free coordinates.

    Messages live on the unordered pairs of particles, start from a radial basis of their distances, and exchange sums
    over the pairs of each particle. The output moves every pair along its difference vector, by a number that depends
    on distances only: it is equivariant to rotations, reflections and permutations, and without a center, in exact
    arithmetic (compare Satorras et al. 2021, arXiv 2102.09844). Preconditioned as `DenoiserMLP` is.

    Args:
        num_particles: n, at least 2.
        space_dim: D.
        width: Of the messages.
        depth: Rounds of exchange, at least 1.
        num_radial: Functions of the radial basis.
        data_std: Standard deviation of the data's coordinates, one number.

    Raises:
        ValueError: For numbers out of range.
    """

    centers: Tensor
    incidence: Tensor
    difference: Tensor

    def __init__(
        self,
        num_particles: int,
        space_dim: int = 3,
        *,
        width: int = 80,
        depth: int = 3,
        num_radial: int = 32,
        data_std: float = 1.0,
    ) -> None:
        space = MeanFreeSpace(num_particles, space_dim)
        super().__init__(space.dim, data_std=data_std)
        if width < 1 or depth < 1 or num_radial < 2:
            raise ValueError(
                f"expected width and depth of at least 1 and num_radial of at least 2, got {width}, {depth} and "
                f"{num_radial}; raise them."
            )
        self.num_particles, self.space_dim = num_particles, space_dim
        self.width, self.depth, self.num_radial = width, depth, num_radial
        # Scaled distances are near sqrt(2 D); the basis ends at twice that.
        centers = torch.linspace(0.0, 2 * (2 * space_dim) ** 0.5, num_radial)
        self.register_buffer("centers", centers, persistent=False)
        self.register_buffer("incidence", space.incidence.abs().float(), persistent=False)
        self.register_buffer("difference", (space.incidence @ space.basis).float(), persistent=False)
        self.noise = FourierFeatures()
        self.embed = nn.Linear(num_radial, width)
        self.embed_noise = nn.Linear(2 * len(self.noise.frequencies), width)
        self.mix = nn.Linear(width, width)
        self.own, self.gathered, self.noised, self.out = (
            nn.ModuleList(nn.Linear(width, width, bias=bias) for _ in range(depth))
            for bias in (True, False, False, True)
        )
        self.last = nn.Linear(width, 1)

    def network(self, inputs: Float[Tensor, "n d"], log_noise: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The preconditioned network."""
        rows = inputs.reshape(-1, self.space_dim, self.num_particles - 1)
        vectors = rows @ self.difference.T  # (N, D, P)
        distances = vectors.square().sum(dim=1).sqrt().unsqueeze(2)
        spacing = self.centers[1] - self.centers[0]
        radial = (-0.5 * ((distances - self.centers) / spacing).square()).exp()
        noise = nn.functional.silu(self.embed_noise(self.noise(log_noise)))
        # (N, P, width): every pair starts from its distance and the noise level.
        pairs = self.mix(nn.functional.silu(self.embed(radial) + noise.unsqueeze(1)))
        for own, gathered, noised, out in zip(self.own, self.gathered, self.noised, self.out, strict=True):
            # The mean message of each particle's pairs (the one from i to j is the one from j to i), and back.
            particles = self.incidence.T @ pairs / (self.num_particles - 1)
            both = self.incidence @ gathered(particles)
            pairs = pairs + out(nn.functional.silu(own(pairs) + both + noised(noise).unsqueeze(1)))
        along: Tensor = self.last(nn.functional.silu(pairs)).squeeze(2)  # (N, P)
        moves: Tensor = (along.unsqueeze(1) * vectors) @ self.difference
        moves = moves.flatten(1) / self.num_particles**0.5
        return moves

    def settings(self) -> dict[str, Any]:
        """Arguments that build a network of this shape."""
        names = ("num_particles", "space_dim", "width", "depth", "num_radial", "data_std")
        return {name: getattr(self, name) for name in names}
