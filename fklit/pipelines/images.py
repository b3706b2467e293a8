"""Images as pipelines return them, brought to one form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_THUMBNAIL = 64


def as_unit_images(images: Any, count: int, *, gradient: bool = False) -> Tensor:
    """Brings images to a float32 tensor (N, C, H, W) in [0, 1].

    Args:
        images: a float tensor (N, C, H, W) in [0, 1] (or (N, 1, C, H, W), videos of one frame), an array (N, H, W, C),
            floats in [0, 1] or bytes, or a list of
            PIL images.
        count: N that is expected.
        gradient: whether a tensor keeps its gradient.

    Raises:
        ValueError: if it is nothing of this kind, or the number differs.
    """
    if isinstance(images, Tensor) and images.ndim == 5:
        if images.shape[1] != 1:
            raise ValueError(
                f"expected images, got videos of {images.shape[1]} frames, of shape {tuple(images.shape)}; call the "
                "pipeline with num_frames=1, or give one picture of each in SteeringRun.finish and decode=."
            )
        images = images.squeeze(1)
    if isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point():
        tensor = (images if gradient else images.detach()).float()
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        tensor = _from_array(images)
    elif isinstance(images, Sequence) and images and all(hasattr(image, "convert") for image in images):
        tensor = _from_array(np.stack([np.asarray(image.convert("RGB")) for image in images]))
    else:
        raise ValueError(
            "expected images as a float tensor (N, C, H, W) in [0, 1], an array (N, H, W, C), or a list of PIL images, "
            f"got a {type(images).__name__}; decode latents first."
        )
    if tensor.shape[0] != count:
        raise ValueError(
            f"expected {count} images (prompts x num_particles), got {tensor.shape[0]}; give one a particle, in the "
            "order of the pipeline."
        )
    return tensor


def shrunk(images: Tensor) -> Tensor:
    """Bytes (N, C, h, w), the longer side at most 64 pixels, of images (N, C, H, W) in [0, 1]; on their device."""
    height, width = images.shape[-2:]
    shrink = _THUMBNAIL / max(height, width)
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        images = torch.nn.functional.interpolate(images, size=size, mode="area")
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
