"""What CLIP-like models expect of their pixels, on batched tensors and with gradients."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ClipPreprocess(nn.Module):
    """Resizes, crops or pads, and normalizes image batches the way open_clip's evaluation transform does with PIL.

    Equal to open_clip's own transform up to PIL's rounding to bytes (a test holds this). Differentiable.

    Args:
        size: Height and width of the result, or one number for both.
        mean: Per-channel mean, of pixel values in [0, 1].
        std: Per-channel standard deviation, of the same.
        interpolation: "bicubic" or "bilinear", antialiased; open_clip reads "random" as bicubic here, and so does this.
        resize_mode: "shortest" side to size and center crop, "longest" side to size and center pad, or "squash".
        fill_color: Byte value (0 to 255) of the padding of "longest".

    Raises:
        ValueError: `interpolation` or `resize_mode` is none of these.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int | Sequence[int],
        mean: Sequence[float],
        *,
        std: Sequence[float],
        interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic",
        resize_mode: Literal["shortest", "longest", "squash"] = "shortest",
        fill_color: int = 0,
    ) -> None:
        super().__init__()
        if interpolation not in ("bicubic", "bilinear", "random"):
            raise ValueError(
                f"expected interpolation 'bicubic', 'bilinear' or 'random', got {interpolation!r}; choose one."
            )
        if resize_mode not in ("shortest", "longest", "squash"):
            raise ValueError(
                f"expected resize_mode 'shortest', 'longest' or 'squash', got {resize_mode!r}; choose one."
            )
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
        self.interpolation = "bilinear" if interpolation == "bilinear" else "bicubic"
        self.resize_mode = resize_mode
        self.fill = fill_color / 255
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Images in [0, 1] of any size to normalized images of `size`, in the dtype of the module."""
        height, width = images.shape[-2:]
        tall, wide = self._resized(height, width)
        if (tall, wide) != (height, width):
            # float32: antialiased resizing has no half-precision kernel on the CPU.
            images = images if images.dtype == torch.float64 else images.float()
            # PIL resizes rows, then columns, and clips the overshoot of bicubic kernels after each.
            images = self._interpolate(self._interpolate(images, height, wide), tall, wide)
        images = self._center(images)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def _interpolate(self, images: Tensor, height: int, width: int) -> Tensor:
        mode = self.interpolation
        if self.resize_mode == "shortest" and self.size[0] != self.size[1]:
            mode = "bicubic"  # open_clip ignores the setting in this case
        resized = F.interpolate(images, size=(height, width), mode=mode, antialias=True, align_corners=False)
        return resized.clamp(0, 1)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.size
        if self.resize_mode == "shortest" and self.size[0] == self.size[1]:  # torchvision.Resize truncates, in this
            short = min(height, width)  # order of operations: 225 of 100 become 108 of 48, not 107
            return int(self.size[0] * height / short), int(self.size[0] * width / short)
        ratios = (height / self.size[0], width / self.size[1])
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return round(height / ratio), round(width / ratio)  # open_clip's ResizeKeepRatio rounds

    def _center(self, images: Tensor) -> Tensor:
        spare = [have - want for have, want in zip(images.shape[-2:], self.size, strict=True)]
        pads = [max(-amount, 0) for amount in spare]
        if any(pads):
            sides = [pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2]
            images = F.pad(images, sides, value=self.fill)
        top, left = (round(max(amount, 0) / 2) for amount in spare)
        return images[..., top : top + self.size[0], left : left + self.size[1]]
