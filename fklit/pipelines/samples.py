"""Samples of any modality as pipelines return them, brought to one form."""

from typing import Any

from torch import Tensor

from fklit.pictures import pictures
from fklit.pipelines.images import as_unit_images, shrunk
from fklit.pipelines.modality import Modality
from fklit.pipelines.videos import as_unit_videos
from fklit.pipelines.waveforms import as_waveforms


def as_samples(found: Any, count: int, modality: Modality, *, gradient: bool = False) -> Tensor:
    """Brings samples to a float32 tensor.

    Args:
        found: what a pipeline, or a decoder of the user's, returned.
        count: N, samples that are expected.
        modality: what they are.
        gradient: whether a tensor keeps its gradient.

    Returns:
        Images (N, C, H, W) in [0, 1], videos (N, F, C, H, W) in [0, 1], or waveforms (N, C, T).

    Raises:
        ValueError: if they are not of this modality, or the number differs.
    """
    if modality == "video":
        return as_unit_videos(found, count, gradient=gradient)
    return (
        as_waveforms(found, count, gradient=gradient)
        if modality == "audio"
        else as_unit_images(found, count, gradient=gradient)
    )


def thumbnails(samples: Tensor) -> Tensor:
    """Return `pictures` of samples as bytes (N, C, h, w), the longer side at most 64 pixels.

    They stay on the device of the samples, so that a run does not wait for them.
    """
    return shrunk(pictures(samples, width=64))
