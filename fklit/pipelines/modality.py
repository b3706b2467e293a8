"""What a pipeline makes: pictures, videos or audio."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

Modality = Literal["image", "video", "audio"]

_FRAMES = ("num_frames", "video_length", "frames", "num_frames_per_chunk")
_VIDEOS = ("video", "control_video")
_AUDIO = (
    "audio_length_in_s", "audio_end_in_s", "num_waveforms_per_prompt", "audio_duration", "audio_duration_s",
    "audio_end_in_seconds", "duration",
)  # fmt: skip


def modality_of(pipeline: Any, arguments: Mapping[str, Any]) -> Modality:
    """Return what a call of a pipeline makes.

    Args:
        pipeline: a diffusers pipeline.
        arguments: keyword arguments of the call; `num_frames=1` makes pictures.
    """
    known = inspect.signature(type(pipeline).__call__).parameters
    for name in _FRAMES:
        if name in known:
            frames = arguments.get(name, known[name].default)
            return "image" if frames == 1 and frames is not True else "video"
    if any(name in known for name in _VIDEOS):
        return "video"
    return "audio" if any(name in known for name in _AUDIO) else "image"
