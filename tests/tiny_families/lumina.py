"""Lumina-Next (Lumina-T2X)."""

from typing import Any

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row


def _lumina() -> Any:
    transformer = component(
        "LuminaNextDiT2DModel", sample_size=4, hidden_size=24, num_attention_heads=3, num_kv_heads=1, multiple_of=16,
        cross_attention_dim=32, learn_sigma=True, norm_eps=1e-5, num_layers=2,
    )  # fmt: skip
    pipeline = assemble("LuminaPipeline", transformer=transformer, scheduler=euler(), vae=kl(4, shift_factor=None))
    return encode_by(pipeline, embeds(32), mask(), embeds(32, negative=True), mask(negative=True))


ROWS = [
    Row("LuminaPipeline", "Lumina-Next", _lumina, "Alpha-VLLM/Lumina-Next-SFT-diffusers", main=True, loose=True,
        arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
]  # fmt: skip
