"""Draws from categorical laws by inversion, so that a draw is a function of its uniform."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def draw(
    log_probs: Float64[Tensor, "m v"], points: Float64[Tensor, "m n"]
) -> tuple[Int64[Tensor, "m n"], Float64[Tensor, "m n"]]:
    """Values by inversion of the distribution function, n of each law, and their log probabilities.

    Args:
        log_probs: Normalized.
        points: In [0, 1).
    """
    edges = log_probs.exp().cumsum(dim=1)
    # Times the sum, which is 1 but for rounding; a value of no probability has no width and is never found.
    values = torch.searchsorted(edges, points * edges[:, -1:], right=True)
    # Rounding may reach the sum itself: then it is the last value of positive probability.
    values = torch.minimum(values, (edges < edges[:, -1:]).sum(dim=1, keepdim=True))
    return values, log_probs.gather(1, values)
