"""A layer of the network: attention in both directions, then a perceptron, both on a normalized residual stream."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit.text.attention import attention
from fklit.text.rotary import rotate

Activation = Literal["squared_relu", "gelu"]
Norm = Literal["rms", "layer"]


class ScaledNorm(nn.Module):
    """Normalization over the last axis in float32 with a weight and no bias.

    Args:
        width: Size of that axis.
        kind: `"rms"` divides by the root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), `"layer"` takes the
            mean away first.
    """

    def __init__(self, width: int, kind: Norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """The normalized values, in the type of `x` times the weight's."""
        shape = (x.shape[-1],)
        normed = F.rms_norm(x.float(), shape, eps=1e-5) if self.kind == "rms" else F.layer_norm(x.float(), shape)
        return normed.to(x.dtype) * self.weight


class SquaredReLU(nn.Module):
    """`relu(x)^2` (So et al. 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of each component."""
        return F.relu(x).square()


class TransformerBlock(nn.Module):
    """One layer.

    Args:
        width: Size of the hidden states, a multiple of twice `heads`.
        heads: Attention heads.
        mlp_ratio: Width of the perceptron over `width`.
        dropout: Of what both halves add, in [0, 1).
        activation: Of the perceptron.
        norm: Kind of normalization.
        bias: Whether the perceptron has biases; attention has none.
        condition_width: Size of a condition that shifts, scales and gates both halves (adaLN-zero; Peebles and Xie
            2023, arXiv:2212.09748); 0 for none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: int,
        dropout: float,
        activation: Activation,
        norm: Norm,
        bias: bool,
        condition_width: int,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = ScaledNorm(width, norm)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = ScaledNorm(width, norm)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width, bias=bias),
            SquaredReLU() if activation == "squared_relu" else nn.GELU(approximate="tanh"),
            nn.Linear(mlp_ratio * width, width, bias=bias),
        )
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(condition_width, 6 * width) if condition_width else None

    def forward(
        self, x: Float[Tensor, "n l d"], cos: Tensor, sin: Tensor, condition: Float[Tensor, " c"] | None = None
    ) -> Float[Tensor, "n l d"]:
        """The next hidden states.

        Args:
            x: Hidden states.
            cos: Of the rotary angles, (l, d / heads / 2).
            sin: Of the same.
            condition: What modulates the layer, if it has a condition.
        """
        if self.modulation is None:
            x = x + self.dropout(self.attend(self.norm1(x), cos, sin))
            added: Tensor = self.dropout(self.mlp(self.norm2(x)))
            return x + added
        assert condition is not None
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6)
        x = x + gate1 * self.dropout(self.attend(self.norm1(x) * (1 + scale1) + shift1, cos, sin))
        gated: Tensor = gate2 * self.dropout(self.mlp(self.norm2(x) * (1 + scale2) + shift2))
        return x + gated

    def attend(self, x: Float[Tensor, "n l d"], cos: Tensor, sin: Tensor) -> Float[Tensor, "n l d"]:
        """What the positions read from one another."""
        number, length, width = x.shape
        split = self.attn_qkv(x).view(number, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = attention(rotate(queries, cos, sin), rotate(keys, cos, sin), values)
        out: Tensor = self.attn_out(mixed.transpose(1, 2).reshape(number, length, width))
        return out
