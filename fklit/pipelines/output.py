"""What a pipeline's call returned: the samples to score, and what its safety checker made of them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fklit.pipelines.interception import UnsupportedPipelineError


@dataclass(frozen=True)
class PipelineOutput:
    """The samples of a call.

    Attributes:
        samples: what was sampled, to be scored: images or frames in any form the pipeline returns them.
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
        UnsupportedPipelineError: if there are neither images nor frames.
    """
    samples = getattr(output, "images", getattr(output, "frames", None))
    if samples is None:
        raise UnsupportedPipelineError(
            f"expected images or frames from {type(pipeline).__name__}, got {type(output).__name__}; call the pipeline "
            "inside the context manager of the method, and give its finish() a tensor."
        )
    flags = getattr(output, "nsfw_content_detected", None)
    if flags is None or decoded is None or decoded.shape[0] != count:
        return PipelineOutput(samples)
    scored = pipeline.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True] * decoded.shape[0])
    return PipelineOutput(scored, samples, list(flags))
