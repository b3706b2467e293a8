"""The network of `LatentImageReward`: latents and a time become the image tokens that a caption attends to."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_FREQUENCIES = 32


class LatentEncoder(nn.Module):
    """Convolutions from denoised latents and their time to image tokens, in place of decoder and image encoder.

    Args:
        in_channels: of the latents.
        channels: after the first convolution, and after the stride of 2; multiples of 8.
        width: of a token.
        blocks: residual blocks at either size.

    Attributes:
        calibration: from the time to what the log odds are multiplied by and what is added.
    """

    def __init__(
        self, in_channels: int = 4, channels: tuple[int, int] = (64, 128), *, width: int = 128,
        blocks: tuple[int, int] = (2, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        fine, coarse = channels
        self.time = nn.Sequential(nn.Linear(2 * _FREQUENCIES, coarse), nn.SiLU())
        self.enter = nn.Conv2d(in_channels, fine, 3, padding=1)
        self.fine = nn.ModuleList(_Block(fine, coarse) for _ in range(blocks[0]))
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(_Block(coarse, coarse) for _ in range(blocks[1]))
        self.norm = nn.GroupNorm(8, coarse)
        self.patches = nn.Conv2d(coarse, width, 1)
        self.whole = nn.Linear(coarse, width)
        self.calibration = nn.Linear(coarse, 2)
        nn.init.zeros_(self.calibration.weight)
        nn.init.zeros_(self.calibration.bias)

    def forward(
        self, latents: Float[Tensor, "n c h w"], time: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n p d"], Float[Tensor, "n 2"]]:
        """Image tokens, the one for the whole image first, and the calibration of the log odds.

        Args:
            latents: denoised predictions.
            time: in [0, 1], of each row.
        """
        powers = torch.arange(_FREQUENCIES, device=time.device, dtype=time.dtype) / _FREQUENCIES
        angles = time[:, None] * 1000 * torch.exp(-math.log(10_000.0) * powers)
        when = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        x = self.enter(latents)
        for block in self.fine:
            x = block(x, when)
        x = self.down(x)
        for block in self.coarse:
            x = block(x, when)
        x = F.silu(self.norm(x))
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.whole(x.mean((2, 3)))[:, None], tokens], dim=1), self.calibration(when)


class _Block(nn.Module):
    """Two normalized convolutions around a shortcut; the time scales and shifts between them."""

    def __init__(self, width: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(time, 2 * width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        scale, shift = self.modulate(when)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm2(self.first(F.silu(self.norm1(x)))) * (1 + scale) + shift
        found: Tensor = x + self.second(F.silu(inner))
        return found


def check_encoder(channels: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse sizes that do not exist.

    Raises:
        ValueError: a width is no positive multiple of 8, or a number of blocks is negative.
    """
    if any(width < 8 or width % 8 for width in channels) or any(number < 0 for number in blocks):
        raise ValueError(
            f"expected channels as multiples of 8 and blocks of at least 0, got {list(channels)} and {list(blocks)}; "
            "change the one outside."
        )
