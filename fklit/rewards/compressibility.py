"""Size of an image as a JPEG file: the simplest reward that has an opinion on images."""

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.rewards.base import Reward


class JPEGIncompressibility(Reward):
    """Size in kB (1000 bytes) of an image as JPEG, as in DDPO (Black et al. 2023, arXiv:2305.13301, section 5.1).

    Detail and texture score high. Images of 512 x 512 pixels score about 20 (plain) to 200 (noise-like) at quality
    95; the size grows with the number of pixels, so the suggested scale is that of 512 x 512. No gradients, no
    weights, no prompts. An image with a pixel that is not finite scores NaN.

    Args:
        quality: JPEG quality, 1 to 100; DDPO took 95.
        max_batch: Most images at once; None for no limit. It changes nothing but memory.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: `quality` is out of range.
    """

    accepts = "image"
    needs_prompts = False
    typical_range = (20.0, 200.0)
    suggested_scale = 0.1

    _sign = 1.0

    def __init__(self, *, quality: int = 95, max_batch: int | None = None, pad: bool = False) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        self.quality = check_count("quality", quality)
        if self.quality > 100:
            raise ValueError(f"expected quality of 1 to 100, got {quality}; give 95 for the published reward.")

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Sizes (n,) of images (n, 3, H, W) or gray ones (n, 1, H, W) in [0, 1], times the sign of the reward."""
        return self._sign * torch.tensor([self._size(image) for image in samples.detach()], dtype=torch.float32)

    def _size(self, image: Tensor) -> float:
        from PIL import Image

        if not bool(torch.isfinite(image).all()):
            return float("nan")
        pixels = (image.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
            buffer, format="JPEG", quality=self.quality
        )
        return buffer.tell() / 1000


class JPEGCompressibility(JPEGIncompressibility):
    """Minus the size in kB of an image as JPEG: plain images score high. See `JPEGIncompressibility`.

    Args:
        quality: JPEG quality, 1 to 100; DDPO took 95.
        max_batch: Most images at once; None for no limit. It changes nothing but memory.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: `quality` is out of range.
    """

    typical_range = (-200.0, -20.0)

    _sign = -1.0
