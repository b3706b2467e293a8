"""Rotary positions (Su et al. 2021, arXiv:2104.09864): queries and keys turn by an angle that grows with position."""

import torch
from jaxtyping import Float
from torch import Tensor


def rotary_angles(
    length: int, width: int, *, base: float = 10_000.0, device: torch.device | str = "cpu"
) -> Float[Tensor, "length half"]:
    """Angles `position * base^(-2 i / width)` for the `width / 2` pairs of components, float32.

    Args:
        length: Positions.
        width: Components of a head; even.
        base: Wavelengths go from `2 pi` to about `2 pi base`.
        device: Of the result.
    """
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    return torch.arange(length, dtype=torch.float32, device=device)[:, None] * rates


def rotate(
    x: Float[Tensor, "... length width"], cos: Float[Tensor, "length half"], sin: Float[Tensor, "length half"]
) -> Float[Tensor, "... length width"]:
    """Turns component i and component `i + width / 2` of each position together, in float32.

    Args:
        x: Queries or keys.
        cos: Of `rotary_angles`.
        sin: Of the same angles.
    """
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
