"""Which pipelines of diffusers sample discrete tokens in a way that an adapter steers, and the adapter of each."""

from typing import Any

from fklit.pipelines.named import is_one_of
from fklit.pipelines.tokens.amused import AmusedPictures
from fklit.pipelines.tokens.diffusion_gemma import DiffusionGemmaText
from fklit.pipelines.tokens.llada2 import LLaDA2Text

_TEXTS = {"LLaDA2Pipeline": LLaDA2Text, "DiffusionGemmaPipeline": DiffusionGemmaText}
_ADAPTERS = {**_TEXTS, "AmusedPipeline": AmusedPictures}


def writes_text(pipeline: Any) -> bool:
    """Return whether a pipeline is one of those that write texts."""
    return is_one_of(pipeline, tuple(_TEXTS))


def as_token_model(pipeline: Any) -> Any:
    """Return a pipeline of tokens with a method `steering_model`, which `fklit.steer` takes; all else as it is."""
    for name, adapter in _ADAPTERS.items():
        if is_one_of(pipeline, name):
            return adapter(pipeline)
    return pipeline
