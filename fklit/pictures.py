"""A picture that stands for a sample: an image itself, the middle frame of a video, a waveform drawn."""

from itertools import pairwise

import torch
from torch import Tensor


def pictures(samples: Tensor, *, width: int = 512) -> Tensor:
    """Return a picture (N, C, H, W) in [0, 1] of each sample.

    Args:
        samples: images (N, C, H, W) in [0, 1], videos (N, F, C, H, W), of which the middle frame is taken, or waveforms
            (N, C, T), which are drawn.
        width: pixels of a waveform.
    """
    if samples.ndim == 5:
        return samples[:, samples.shape[1] // 2]
    return drawn_waveforms(samples, width=width, height=max(1, width // 4)) if samples.ndim == 3 else samples


def drawn_waveforms(audio: Tensor, *, width: int, height: int) -> Tensor:
    """Draws audio (N, C, T) as pictures (N, 3, height, width) in [0, 1]: least and greatest sample of each column."""
    count, _, length = audio.shape
    edges = torch.linspace(0, length, width + 1).round().long().tolist()
    columns = []
    for start, stop in pairwise(edges):
        part = audio[:, :, min(start, length - 1) : max(stop, min(start, length - 1) + 1)].flatten(1).clamp(-1, 1)
        columns.append(torch.stack([part.amin(1), part.amax(1)], dim=1))
    low, high = torch.stack(columns, dim=2).unbind(1)  # (N, width) each
    rows = torch.linspace(1, -1, height, device=audio.device).reshape(1, height, 1)
    half = 1 / height  # silence is a line
    inside = (rows <= high.unsqueeze(1) + half) & (rows >= low.unsqueeze(1) - half)
    ink = torch.tensor([0.16, 0.35, 0.65], device=audio.device).reshape(1, 3, 1, 1)
    drawn: Tensor = torch.where(inside.unsqueeze(1), ink, torch.ones(count, 3, height, width, device=audio.device))
    return drawn


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """Return at most `count` frames, evenly spaced from the first to the last."""
    if num_frames <= count:
        return list(range(num_frames))
    return [round(i * (num_frames - 1) / max(count - 1, 1)) for i in range(count)]
