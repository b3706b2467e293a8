"""Attention in both directions over all positions, by the faster of two ways."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SHORT = 256  # positions up to which the products below are faster than the fused kernel's backward pass on a CPU


def attention(
    queries: Float[Tensor, "n h l d"], keys: Float[Tensor, "n h l d"], values: Float[Tensor, "n h l d"]
) -> Float[Tensor, "n h l d"]:
    """Every position's mean of the values, by the softmax of its scaled products with the keys.

    PyTorch's fused kernel, but for gradients of short rows on a CPU: there two plain products take a quarter (53
    positions, bfloat16) to two thirds (256) of its time. The two differ by rounding alone.

    Args:
        queries: Of n rows, h heads and l positions.
        keys: Of the same.
        values: Of the same.
    """
    if queries.requires_grad and queries.device.type == "cpu" and queries.shape[-2] <= _SHORT:
        scores = torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2))
        precise = torch.promote_types(scores.dtype, torch.float32)  # at least float32; float64 stays
        return torch.matmul(scores.softmax(dim=-1, dtype=precise).to(values.dtype), values)
    return F.scaled_dot_product_attention(queries, keys, values)
