"""Videos as pipelines return them, brought to one form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fklit.pipelines.images import as_unit_images


def as_unit_videos(videos: Any, count: int, *, gradient: bool = False) -> Tensor:
    """Brings videos to a float32 tensor (N, F, C, H, W) in [0, 1].

    Args:
        videos: a float tensor (N, F, C, H, W) in [0, 1], an array (N, F, H, W, C), floats in [0, 1] or bytes, or a list
            of N videos, each a list of F PIL images.
        count: N that is expected.
        gradient: whether a tensor keeps its gradient.

    Raises:
        ValueError: if it is nothing of this kind, or the number differs.
    """
    if isinstance(videos, Tensor) and videos.ndim == 5 and videos.is_floating_point():
        found = (videos if gradient else videos.detach()).float()
    elif isinstance(videos, np.ndarray) and videos.ndim == 5:
        rows = as_unit_images(videos.reshape(-1, *videos.shape[2:]), videos.shape[0] * videos.shape[1])
        found = rows.reshape(*videos.shape[:2], *rows.shape[1:])
    elif isinstance(videos, Sequence) and videos and all(isinstance(video, Sequence) and video for video in videos):
        found = torch.stack([as_unit_images(video, len(video)) for video in videos])
    else:
        shape = f" of shape {tuple(videos.shape)}" if hasattr(videos, "shape") else ""
        raise ValueError(
            "expected videos as a float tensor (N, F, C, H, W) in [0, 1], an array (N, F, H, W, C), or lists of PIL "
            f"images, got a {type(videos).__name__}{shape}; decode latents first."
        )
    if found.shape[0] != count:
        raise ValueError(
            f"expected {count} videos (prompts x num_particles), got {found.shape[0]}; give one a particle, in the "
            "order of the pipeline."
        )
    return found
