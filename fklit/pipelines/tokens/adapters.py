"""Which pipelines of diffusers sample discrete tokens in a way that fklit steers, and the model of each."""

from collections.abc import Sequence
from typing import Any

from fklit.pipelines.named import is_one_of
from fklit.pipelines.tokens.amused import AmusedModel
from fklit.pipelines.tokens.arguments import TokenSettings
from fklit.pipelines.tokens.diffusion_gemma import DiffusionGemmaModel
from fklit.pipelines.tokens.llada2 import LLaDA2Model

TokenModel = AmusedModel | DiffusionGemmaModel | LLaDA2Model

_TEXTS: dict[str, type[DiffusionGemmaModel] | type[LLaDA2Model]] = {
    "LLaDA2Pipeline": LLaDA2Model,
    "DiffusionGemmaPipeline": DiffusionGemmaModel,
}
_MODELS: dict[str, type[TokenModel]] = {**_TEXTS, "AmusedPipeline": AmusedModel}


class TokenPipeline:
    """What makes `fklit.steer` take a pipeline of discrete tokens.

    Args:
        pipeline: Of diffusers.
        model: Class of the model of one run.

    Attributes:
        name: Class of the pipeline, for messages.
    """

    def __init__(self, pipeline: Any, model: type[TokenModel]) -> None:
        self.pipeline, self.model = pipeline, model
        self.name = type(pipeline).__name__

    def steering_model(self, prompts: Sequence[str], settings: TokenSettings) -> TokenModel:
        """The model of one run.

        Args:
            prompts: B prompts.
            settings: `pipeline_kwargs` are arguments of the pipeline's call, and `num_draws`.

        Raises:
            DeterministicSamplerError: Several particles are to be told apart, but the call draws nothing.
            ValueError: Arguments do not fit.
        """
        made = self.model(self.pipeline, prompts, settings.pipeline_kwargs, max_batch=settings.max_batch)
        made.check(settings)
        return made


def writes_text(pipeline: Any) -> bool:
    """Return whether a pipeline is one of those that write texts."""
    return is_one_of(pipeline, tuple(_TEXTS))


def as_token_model(pipeline: Any) -> Any:
    """Return a pipeline of tokens with a method `steering_model`, which `fklit.steer` takes; all else as it is."""
    for name, model in _MODELS.items():
        if is_one_of(pipeline, name):
            return TokenPipeline(pipeline, model)
    return pipeline
