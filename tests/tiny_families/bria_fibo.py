"""Bria FIBO: a network of two streams fed by the layers of a language model."""

from typing import Any

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import Part, embeds, encode_by, ids, mask
from tiny_families.row import Row


def _fibo() -> Any:
    network = component(
        "BriaFiboTransformer2DModel", patch_size=1, in_channels=16, num_layers=2, num_single_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=64, text_encoder_dim=32,
        pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    vae = component("AutoencoderKLWan", base_dim=24, dim_mult=[1, 2, 4, 4])
    pipeline = assemble("BriaFiboPipeline", transformer=network, scheduler=euler(), vae=vae)
    return pipeline


ROWS = []
