"""A small denoiser of vectors, for correctors on data of few dimensions."""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit.correctors.targets.denoiser_base import Denoiser


class FourierFeatures(nn.Module):
    """Sines and cosines of a number at `count` geometric frequencies from 1/4 to `highest`."""

    frequencies: Tensor

    def __init__(self, count: int = 16, highest: float = 8.0) -> None:
        super().__init__()
        exponents = torch.linspace(math.log(0.25), math.log(highest), count)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, values: Float[Tensor, " n"]) -> Float[Tensor, "n f"]:
        """Features (n, 2 count)."""
        angles = values.unsqueeze(1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class DenoiserMLP(Denoiser):
    """`D(x, sigma)`, an estimate of `E[x_0 | x_0 + sigma e = x]` for vectors.

    A multilayer perceptron, preconditioned as `Denoiser` says. As an expert: `ScoreModel(denoiser, path,
    prediction="edm", event_shape=(dim,))`, on any path.

    Args:
        dim: length of the vectors.
        width: of the hidden layers.
        depth: number of hidden layers, at least 1.
        data_std: standard deviation of the data, one number.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 3, *, data_std: float = 1.0) -> None:
        if dim < 1 or width < 1 or depth < 1 or not data_std > 0:
            raise ValueError(
                f"expected positive numbers, got dim={dim}, width={width}, depth={depth}, data_std={data_std}; dim is "
                "the length of the vectors."
            )
        super().__init__(dim, data_std=data_std)
        self.width, self.depth = width, depth
        self.noise = FourierFeatures()
        sizes = [dim + 2 * len(self.noise.frequencies), *[width] * depth]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def network(self, inputs: Float[Tensor, "n d"], log_noise: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The preconditioned network."""
        out: Tensor = self.layers(torch.cat([inputs, self.noise(log_noise)], dim=1))
        return out

    def settings(self) -> dict[str, Any]:
        """Arguments that build a network of this shape."""
        return {"dim": self.dim, "width": self.width, "depth": self.depth, "data_std": self.data_std}
