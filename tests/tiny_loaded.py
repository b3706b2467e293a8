"""Pipeline classes for `pipeline_class` of a configuration, that load tiny folders without text encoders."""

from typing import Any

import diffusers
from tiny_flow import make


def _without_encoders(name: str, family: str) -> Any:
    """A class of diffusers whose prompts are encoded as in `tiny_flow`."""
    base = getattr(diffusers, name)
    encode = make(family)[0].encode_prompt
    optional = [key for key in base._get_signature_keys(base)[0] if key.startswith(("text_encoder", "tokenizer"))]
    optional += [*base._optional_components, "feature_extractor", "image_encoder", "transformer_2"]
    return type(name, (base,), {
        "encode_prompt": lambda self, *args, **kwargs: encode(*args, **kwargs),
        "_optional_components": sorted({*optional}), "__module__": __name__,
    })  # fmt: skip


StableDiffusion3Pipeline = _without_encoders("StableDiffusion3Pipeline", "sd3")
FluxPipeline = _without_encoders("FluxPipeline", "flux-dev")
QwenImagePipeline = _without_encoders("QwenImagePipeline", "qwen-image")
WanPipeline = _without_encoders("WanPipeline", "wan")
