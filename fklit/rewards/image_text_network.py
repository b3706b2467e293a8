"""The network of ImageReward: BLIP's image and text encoders with cross-attention, and a small head on the text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class ConvStem(nn.Sequential):
    """Cuts an image into patch embeddings with strided 3x3 convolutions and residual blocks, for small models.

    A plain patch embedding needs far more images before the encoder knows an edge (Xiao et al. 2021, arXiv:2106.14881).

    Args:
        widths: Channels after each stride of 2, multiples of 8; the last is that of the encoder. `len(widths)` halvings
            give patches of `2 ** len(widths)` pixels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths[:-1]), widths, strict=True):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
            # most of the cost is where the picture is largest: no residual block there
            layers += [nn.GroupNorm(8, outputs), nn.ReLU()] if inputs == 3 else [_Residual(outputs)]
        super().__init__(*layers, nn.Conv2d(widths[-1], widths[-1], 1))

    @property
    def weight(self) -> Tensor:
        """That of the first convolution: BLIP's embeddings read its dtype."""
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        return first.weight


class _Residual(nn.Module):
    """Two normalized 3x3 convolutions around a shortcut, before an activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(F.relu(self.norm1(x)))
        return F.relu(x + self.second(F.relu(self.norm2(inner))))


class ImageTextNetwork(nn.Module):
    """Scores (image, caption) pairs: the caption's first token, having attended to the image, through a head.

    Xu et al. 2023 (arXiv:2304.05977), section 3: BLIP's image-grounded text encoder and a multi-layer perceptron
    without activations (768, 1024, 128, 64, 16, 1), which has dropout in training only.

    Args:
        vision: Arguments of `transformers.BlipVisionConfig`.
        text: Arguments of `transformers.BlipTextConfig`; `encoder_hidden_size` follows from `vision`.
        head: Sizes of the hidden layers of the head.
        stem: Widths of a `ConvStem` in place of the patch embedding; None for BLIP's own.
        pad_token: Number of the token that fills captions up.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        *,
        head: Sequence[int] = (1024, 128, 64, 16),
        stem: Sequence[int] | None = None,
        pad_token: int = 0,
    ) -> None:
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        # The default deviation of transformers 5.23 is 1e-10: weights that are trained from it stay where they are.
        vision_config = BlipVisionConfig(**{"initializer_range": 0.02, **vision})
        text_config = BlipTextConfig(
            **{**text, "encoder_hidden_size": vision_config.hidden_size, "is_decoder": True}  # with cross-attention
        )
        self.vision = BlipVisionModel(vision_config)
        if stem is not None:
            _check_stem(stem, vision_config)
            self.vision.embeddings.patch_embedding = ConvStem(stem)
        self.text = BlipTextModel(text_config, add_pooling_layer=False)
        sizes = (text_config.hidden_size, *head, 1)
        drops = (0.2, 0.2, 0.1)  # after the first three layers, as published
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers.append(nn.Linear(inputs, outputs))
            if index < len(drops) and index < len(sizes) - 2:
                layers.append(nn.Dropout(drops[index]))
        self.head = nn.Sequential(*layers)
        self.pad_token = pad_token

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p d"]:
        """One token a patch, after one for the whole image, of normalized images."""
        tokens: Tensor = self.vision(images).last_hidden_state
        return tokens

    def read(self, tokens: Int[Tensor, "n l"], seen: Float[Tensor, "n p d"]) -> Float[Tensor, "n l e"]:
        """Hidden state of each token of n captions, each having attended to its own image's `seen`."""
        hidden: Tensor = self.text(
            input_ids=tokens,
            # not from the model's buffer of integers, which averaging of weights would round down
            position_ids=torch.arange(tokens.shape[1], device=tokens.device)[None],
            attention_mask=(tokens != self.pad_token).long(),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
            is_decoder=False,  # tokens attend to those behind them, too
        ).last_hidden_state
        return hidden

    def forward(self, tokens: Int[Tensor, "n l"], seen: Float[Tensor, "n p d"]) -> Float[Tensor, " n"]:
        """Raw scores of n pairs."""
        score: Tensor = self.head(self.read(tokens, seen)[:, 0])[:, 0]
        return score


def _check_stem(stem: Sequence[int], config: Any) -> None:
    if 2 ** len(stem) != config.patch_size or stem[-1] != config.hidden_size or any(width % 8 for width in stem):
        raise ValueError(
            f"expected stem widths, multiples of 8, for patches of {config.patch_size} pixels that end at "
            f"{config.hidden_size}, got {list(stem)}; give one width for each halving."
        )
