"""Audio as pipelines return it, brought to one form."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_waveforms(audio: Any, count: int, *, gradient: bool = False) -> Tensor:
    """Brings audio to a float32 tensor (N, C, T), C channels of T samples, nominally in [-1, 1].

    Args:
        audio: a float tensor or array (N, C, T), or (N, T) of one channel.
        count: N that is expected.
        gradient: whether a tensor keeps its gradient.

    Raises:
        ValueError: if it is nothing of this kind, or the number differs.
    """
    if isinstance(audio, list) and audio and all(isinstance(row, Tensor | np.ndarray) for row in audio):
        audio = torch.stack([torch.as_tensor(row) for row in audio])
    found = torch.from_numpy(np.ascontiguousarray(audio)) if isinstance(audio, np.ndarray) else audio
    if not isinstance(found, Tensor) or found.ndim not in (2, 3) or not found.is_floating_point():
        shape = f" of shape {tuple(audio.shape)}" if hasattr(audio, "shape") else ""
        raise ValueError(
            f"expected audio as a float tensor or array (N, C, T) or (N, T), got a {type(audio).__name__}{shape}; "
            "decode latents first."
        )
    found = (found if gradient else found.detach()).float()
    if found.ndim == 2:
        found = found.unsqueeze(1)
    if found.shape[0] != count:
        raise ValueError(
            f"expected {count} waveforms (prompts x num_particles), got {found.shape[0]}; give one a particle, in the "
            "order of the pipeline."
        )
    return found


def sampling_rate_of(pipeline: Any) -> int:
    """Return the samples a second of the audio that a pipeline makes.

    Raises:
        ValueError: if neither its autoencoder nor its vocoder says so.
    """
    places = [getattr(pipeline, name, None) for name in ("vocoder", "vae", "autoencoder")]
    for part in places:
        config = getattr(part, "config", None)
        for holder in (part, config):
            for name in ("sampling_rate", "sample_rate", "output_sampling_rate"):
                rate = getattr(holder, name, None)
                if isinstance(rate, int | float) and rate > 0:
                    return int(rate)
    raise ValueError(
        f"expected a vae or vocoder with a sampling_rate, got {type(pipeline).__name__} without one; set "
        "pipeline.vae.config.sampling_rate to the samples a second of its audio."
    )
