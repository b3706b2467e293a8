"""Mochi 1: flow matching on a grid of its own."""

from typing import Any

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row


def _mochi() -> Any:
    import torch

    transformer = component(
        "MochiTransformer3DModel", patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        pooled_projection_dim=16, in_channels=12, out_channels=None, qk_norm="rms_norm", text_embed_dim=32,
        time_embed_dim=4, activation_fn="swiglu", max_sequence_length=16,
    )  # fmt: skip
    vae = component(
        "AutoencoderKLMochi", latent_channels=12, out_channels=3, encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32), layers_per_block=(1, 1, 1, 1, 1), in_channels=15,
    )  # fmt: skip
    pipeline = assemble("MochiPipeline", transformer=transformer, vae=vae, scheduler=euler(invert_sigmas=True))
    both = (embeds(32), mask(dtype=torch.bool), embeds(32, negative=True), mask(negative=True, dtype=torch.bool))
    return encode_by(pipeline, *both)


ROWS = [
    Row("MochiPipeline", "Mochi", _mochi, "genmo/mochi-1-preview", "video", main=True, loose=True,
        arguments={"height": 16, "width": 16, "num_frames": 7, "guidance_scale": 3.0}),
]  # fmt: skip
