"""What a pipeline's call returned: the samples to score, and what its safety checker made of them."""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fklit.pipelines.interception import UnsupportedPipelineError


class AudioTrackWarning(UserWarning):
    """A pipeline makes videos with sound, of which fklit keeps the pictures."""


@dataclass(frozen=True)
class PipelineOutput:
    """The samples of a call.

    Attributes:
        samples: what was sampled, to be scored: images, frames or audio in any form the pipeline returns them.
        returned: what the pipeline returned where that differs (a safety checker blackens what it flags), or None.
        flagged: the safety checker's verdicts, one a sample, or None.
    """

    samples: Any
    returned: Any = None
    flagged: list[bool] | None = None


def read_output(pipeline: Any, output: Any, decoded: Tensor | None, count: int) -> PipelineOutput:
    """Return the samples of a pipeline's output.

    Args:
        pipeline: a diffusers pipeline.
        output: what its call returned.
        decoded: what it decoded last, (N, 3, H, W) in [-1, 1], before its safety checker; None without a decoder.
        count: N, samples of the call.

    Raises:
        UnsupportedPipelineError: if there are neither images, nor frames, nor audio.

    Warns:
        AudioTrackWarning: if there is a sound track beside the frames.
    """
    samples = samples_of(output)
    if samples is None:
        raise UnsupportedPipelineError(
            f"expected images, frames or audio from {type(pipeline).__name__}, got {type(output).__name__}; call the "
            "pipeline inside the context manager of the method, and give its finish() a tensor."
        )
    if getattr(output, "frames", None) is not None and getattr(output, "audio", None) is not None:
        warnings.warn(
            f"the sound of {type(pipeline).__name__} is no part of the samples; call the pipeline inside SteeringRun "
            "to keep its output.",
            AudioTrackWarning,
            stacklevel=3,
        )
    first = samples[0] if isinstance(samples, list) and samples else None
    if isinstance(first, list | tuple) or (isinstance(first, Tensor) and first.ndim == 4):
        raise UnsupportedPipelineError(
            f"expected one picture a sample from {type(pipeline).__name__}, got {len(first)} for each "
            "(layers), which no reward of pictures scores; give SteeringRun.finish the one picture of each to score."
        )
    flags = getattr(output, "nsfw_content_detected", None)
    if flags is None or decoded is None or decoded.shape[0] != count:
        return PipelineOutput(samples)
    scored = pipeline.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True] * decoded.shape[0])
    return PipelineOutput(scored, samples, list(flags))


def samples_of(output: Any) -> Any:
    """Return the images, frames or audio of a pipeline's output; None if there are none."""
    found = (getattr(output, name, None) for name in ("images", "image", "frames", "audios", "audio"))
    return next((samples for samples in found if samples is not None), None)
