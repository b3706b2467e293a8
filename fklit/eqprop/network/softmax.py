"""Softmax over the last axis in real, complex and split arithmetic; holomorphic, as nothing is conjugated."""

import torch
from torch import Tensor


def softmax(z: Tensor) -> Tensor:
    """Softmax of real or complex values; the largest real part is subtracted as a constant."""
    if not z.is_complex():
        return torch.softmax(z, -1)
    exponentials = torch.exp(z - z.real.amax(-1, keepdim=True).detach())
    return exponentials / exponentials.sum(-1, keepdim=True)


def split_softmax(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of `real + i imaginary` in real arithmetic; returns real and imaginary part."""
    size = torch.exp(real - real.amax(-1, keepdim=True))
    a, b = size * torch.cos(imaginary), size * torch.sin(imaginary)
    sum_a, sum_b = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    inverse = 1 / (sum_a * sum_a + sum_b * sum_b)
    return (a * sum_a + b * sum_b) * inverse, (b * sum_a - a * sum_b) * inverse
