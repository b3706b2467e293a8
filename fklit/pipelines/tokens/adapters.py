"""Which pipelines of diffusers write texts, and the adapter of each."""

from typing import Any

from fklit.pipelines.named import is_one_of
from fklit.pipelines.tokens.diffusion_gemma import DiffusionGemmaText
from fklit.pipelines.tokens.llada2 import LLaDA2Text

_ADAPTERS = {"LLaDA2Pipeline": LLaDA2Text, "DiffusionGemmaPipeline": DiffusionGemmaText}


def writes_text(pipeline: Any) -> bool:
    """Return whether a pipeline is one of those that write texts."""
    return is_one_of(pipeline, tuple(_ADAPTERS))


def as_text_model(pipeline: Any) -> Any:
    """Return a text pipeline with a method `steering_model`, which `fklit.steer` takes; all else as it is."""
    for name, adapter in _ADAPTERS.items():
        if is_one_of(pipeline, name):
            return adapter(pipeline)
    return pipeline
