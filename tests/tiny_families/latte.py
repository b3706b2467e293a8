"""Latte: DDIM over frames of an image autoencoder."""

from typing import Any

import tiny

from tiny_families.components import assemble, component
from tiny_families.encodings import embeds, encode_by
from tiny_families.row import Row


def _latte() -> Any:
    transformer = component(
        "LatteTransformer3DModel", sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8,
        num_attention_heads=3, caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8,
        attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, video_length=2,
    )  # fmt: skip
    pipeline = assemble("LattePipeline", transformer=transformer, vae=tiny._vae(), scheduler=tiny._ddim())
    return encode_by(pipeline, embeds(32), embeds(32, negative=True))


ROWS = [
    Row("LattePipeline", "Latte", _latte, "maxin-cn/Latte-1", "video", main=True,
        arguments={"height": 16, "width": 16, "video_length": 2, "guidance_scale": 3.0}),
]  # fmt: skip
