"""What makes `fklit.steer` take a pipeline of protein designs."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fklit.pipelines.named import is_one_of
from fklit.pipelines.proteins.model import ProteinModel
from fklit.pipelines.tokens.arguments import TokenSettings


class ProteinPipeline:
    """`RFD4ProteinaPipeline` of diffusers with a method `steering_model`, which `fklit.steer` takes.

    Each row of `padding_mask` is one group of particles. Prompts are names of the rows, for the record; they may be
    omitted.

    Args:
        pipeline: Of diffusers.

    Attributes:
        name: Class of the pipeline, for messages.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.name = type(pipeline).__name__

    def count_groups(self, settings: TokenSettings) -> int:
        """How many designs are asked for: rows of `padding_mask` in `pipeline_kwargs`; 1 where there is none."""
        mask = (settings.pipeline_kwargs or {}).get("padding_mask")
        return len(mask) if isinstance(mask, Tensor) and mask.ndim > 0 else 1

    def steering_model(self, prompts: Sequence[str], settings: TokenSettings) -> ProteinModel:
        """The model of one run.

        Args:
            prompts: B names.
            settings: `pipeline_kwargs` are arguments of the pipeline's call.

        Raises:
            DeterministicSamplerError: Several particles are to be told apart, but the schedulers draw nothing.
            ValueError: Arguments do not fit.
        """
        given: Mapping[str, Any] = settings.pipeline_kwargs or {}
        made = ProteinModel(self.pipeline, given, num_groups=len(prompts), max_batch=settings.max_batch)
        made.check(settings)
        return made


def as_protein_model(pipeline: Any) -> Any:
    """Return a pipeline of proteins with a method `steering_model`; all else as it is."""
    return ProteinPipeline(pipeline) if is_one_of(pipeline, "RFD4ProteinaPipeline") else pipeline
