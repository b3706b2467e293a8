"""How far experts disagree: the sum that the weight of every product of experts is made of."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor


def inner(left: Tensor, right: Tensor) -> Float64[Tensor, "B K"]:
    """Return the inner product of each particle, (B, K), summed in float64, of tensors (B, K, *event)."""
    return (left * right).flatten(2).sum(dim=2, dtype=torch.float64)


def weighted_sum(values: Sequence[Tensor], exponents: Sequence[float]) -> Tensor:
    """Return `sum_i beta_i v_i`, of the shape of each `v_i`."""
    total = torch.zeros_like(values[0])
    for exponent, value in zip(exponents, values, strict=True):
        total = total + exponent * value
    return total


def subtract_dispersion(
    start: Float64[Tensor, "B K"], values: Sequence[Tensor], exponents: Sequence[float], center: Tensor
) -> Float64[Tensor, "B K"]:
    """Return `start - sum_i beta_i |v_i - center|^2`, (B, K).

    Where the exponents sum to 1 and the center is the `weighted_sum`, this is `start + |v|^2 - sum_i beta_i |v_i|^2`
    without the cancellation of two large numbers.

    Args:
        start: what is subtracted from, (B, K).
        values: `v_i` of each expert (scores, means or denoised predictions), each (B, K, *event).
        exponents: `beta_i`.
        center: (B, K, *event).
    """
    result = start
    for exponent, value in zip(exponents, values, strict=True):
        deviation = value - center
        result = result - exponent * inner(deviation, deviation)
    return result
