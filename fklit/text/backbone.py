"""The network of masked diffusion: a transformer that reads all positions and predicts the masked ones."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from fklit.text.block import Activation, Norm, ScaledNorm, TransformerBlock
from fklit.text.rotary import rotary_angles

_PIECE = 64  # positions that the head predicts at once outside of training
_FREQUENCIES = 256  # components of the embedding of a noise level


@dataclass(frozen=True)
class TransformerSettings:
    """What a `DiffusionTransformer` is made of; the defaults are the model that ships.

    Attributes:
        vocab_size: Tokens, the mask and other special ones included.
        width: Size of the hidden states, a multiple of twice `heads`.
        layers: Layers.
        heads: Attention heads.
        mlp_ratio: Width of the perceptrons over `width`.
        dropout: Of what each half of a layer adds, in [0, 1).
        activation: Of the perceptrons.
        norm: Kind of normalization.
        bias: Whether perceptrons and head have biases.
        tied: Whether the head is the embedding.
        condition_width: Width of the embedding of the noise level that modulates the layers; 0 for none. The published
            networks have one and were trained with the level held at 0, so that it is a constant.

    Raises:
        ValueError: A number is out of its range.
    """

    vocab_size: int = 8192
    width: int = 256
    layers: int = 6
    heads: int = 4
    mlp_ratio: int = 4
    dropout: float = 0.1
    activation: Activation = "squared_relu"
    norm: Norm = "rms"
    bias: bool = False
    tied: bool = True
    condition_width: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("vocab_size", self.vocab_size, 2),
            ("layers", self.layers, 1),
            ("heads", self.heads, 1),
            ("mlp_ratio", self.mlp_ratio, 1),
            ("condition_width", self.condition_width, 0),
        ):
            if value < least:
                raise ValueError(f"expected {name} of at least {least}, got {value}; give an integer.")
        if self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(
                f"expected width as a multiple of twice heads, got {self.width} with {self.heads} heads; change one."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {self.dropout}; give a probability.")
        for name, choice, choices in (
            ("activation", self.activation, ("squared_relu", "gelu")),
            ("norm", self.norm, ("rms", "layer")),
        ):
            if choice not in choices:
                raise ValueError(f"expected {name} as one of {', '.join(choices)}, got {choice!r}; choose one.")

    def as_config(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


class DiffusionTransformer(nn.Module):
    """Predicts tokens from the others; the architecture of MDLM (Sahoo et al. 2024, arXiv:2406.07524, appendix).

    With `activation="gelu"`, `norm="layer"`, `bias=True`, `tied=False` and `condition_width=128` it is the published
    one. It takes no noise level: what is masked says how noisy a text is.

    Args:
        settings: What it is made of.
    """

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.settings = settings
        width, condition = settings.width, settings.condition_width
        self.embedding = nn.Embedding(settings.vocab_size, width)
        self.level = (
            nn.Sequential(nn.Linear(_FREQUENCIES, condition), nn.SiLU(), nn.Linear(condition, condition))
            if condition
            else None
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                settings.heads,
                mlp_ratio=settings.mlp_ratio,
                dropout=settings.dropout,
                activation=settings.activation,
                norm=settings.norm,
                bias=settings.bias,
                condition_width=condition,
            )
            for _ in range(settings.layers)
        )
        self.norm = ScaledNorm(width, settings.norm)
        self.modulation = nn.Linear(condition, 2 * width) if condition else None
        self.head = nn.Linear(width, settings.vocab_size, bias=settings.bias)
        if settings.tied:
            self.head.weight = self.embedding.weight
        self._start()

    def _start(self) -> None:
        """Small random matrices; what a layer adds, and what modulates it, starts at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            last = block.mlp[2]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(block.attn_out.weight)
            nn.init.zeros_(last.weight)
            if block.modulation is not None:
                nn.init.zeros_(block.modulation.weight)
                # Gates at 1: a layer of zeros behind a gate of zero would never learn.
                nn.init.zeros_(block.modulation.bias)
                gates = block.modulation.bias.view(6, -1)
                with torch.no_grad():
                    gates[[2, 5]] = 1.0
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def hidden(self, tokens: Int64[Tensor, "n l"]) -> Float[Tensor, "n l d"]:
        """Hidden states that the head reads.

        Args:
            tokens: Ids.
        """
        width = self.settings.width // self.settings.heads
        angles = rotary_angles(tokens.shape[1], width, device=tokens.device)
        cos, sin = angles.cos(), angles.sin()
        x: Tensor = self.embedding(tokens)
        condition = None
        if self.level is not None:
            # Sines and cosines of the level 0: ones, then zeros.
            waves = torch.zeros(_FREQUENCIES, device=tokens.device, dtype=x.dtype)
            waves[: _FREQUENCIES // 2] = 1.0
            condition = F.silu(self.level(waves))
        for block in self.blocks:
            x = block(x, cos, sin, condition)
        x = self.norm(x)
        if self.modulation is not None:
            shift, scale = self.modulation(condition).chunk(2)
            x = x * (1 + scale) + shift
        return x

    def forward(
        self, tokens: Int64[Tensor, "n l"], at: Bool[Tensor, "n l"] | None = None
    ) -> Float[Tensor, "n l v"] | Float[Tensor, "m v"]:
        """Logits, of all positions or only of those that are asked for, which saves most of the head.

        Args:
            tokens: Ids; the mask's where the token is to be predicted.
            at: The m positions to predict; None for all.

        Returns:
            Logits (n, l, v), or (m, v) in the order of `tokens[at]`.
        """
        hidden = self.hidden(tokens)
        if at is None or self.training:
            logits: Tensor = self.head(hidden if at is None else hidden[at])
            return logits
        # In pieces of one size, so that a position's logits have the same bits whatever else is asked for.
        chosen = hidden[at]
        filled = F.pad(chosen, (0, 0, 0, -len(chosen) % _PIECE))
        pieces = [self.head(piece) for piece in torch.split(filled, _PIECE)]
        return torch.cat(pieces)[: len(chosen)]
