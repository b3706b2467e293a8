"""Families whose network is built like that of FLUX.1: Bria, LongCat-Image, Ovis-Image, VisualCloze."""

from typing import Any

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import embeds, encode_by, ids
from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}
_SHAPE = {"patch_size": 1, "in_channels": 4, "attention_head_dim": 16, "axes_dims_rope": [4, 4, 8]}


def _parts(network: Any, **options: Any) -> dict[str, Any]:
    return {"scheduler": euler(**options), "vae": kl(1), "transformer": network}


def _bria() -> Any:
    network = component("BriaTransformer2DModel", **_SHAPE, joint_attention_dim=32, pooled_projection_dim=None)
    pipeline = assemble("BriaPipeline", **_parts(network, use_dynamic_shifting=True))
    return encode_by(pipeline, embeds(32), embeds(32, negative=True), ids(3))


def _longcat(name: str) -> Any:
    shape = {**_SHAPE, "in_channels": 64, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    network = component("LongCatImageTransformer2DModel", **shape)
    pipeline = assemble(name, **{**_parts(network, use_dynamic_shifting=True), "vae": kl(16)})
    return encode_by(pipeline, embeds(32), ids(3))


def _ovis() -> Any:
    network = component("OvisImageTransformer2DModel", **_SHAPE, joint_attention_dim=32)
    pipeline = assemble("OvisImagePipeline", **_parts(network, use_dynamic_shifting=True))
    return encode_by(pipeline, embeds(32), embeds(32, negative=True), ids(3), ids(3, negative=True))


ROWS = [
    Row("BriaPipeline", "Bria 3.2", _bria, "briaai/BRIA-3.2", main=True, arguments={**_SQUARE, "guidance_scale": 3.0}),
    Row("LongCatImagePipeline", "LongCat-Image", lambda: _longcat("LongCatImagePipeline"),
        "meituan-longcat/LongCat-Image", main=True,
        arguments={**_SQUARE, "guidance_scale": 3.0, "negative_prompt": "bad", "enable_prompt_rewrite": False}),
    Row("OvisImagePipeline", "Ovis-Image", _ovis, "AIDC-AI/Ovis-Image-7B", main=True,
        arguments={**_SQUARE, "guidance_scale": 3.0, "negative_prompt": "bad"}),
]  # fmt: skip
