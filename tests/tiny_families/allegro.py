"""Allegro: videos in tiles of their autoencoder."""

from typing import Any

import torch

from tiny_families.components import assemble, component
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row


def _allegro() -> Any:
    from diffusers import EulerAncestralDiscreteScheduler
    from diffusers.models.autoencoders.vae import DecoderOutput

    transformer = component(
        "AllegroTransformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        num_layers=1, cross_attention_dim=24, sample_width=2, sample_height=2, sample_frames=2, caption_channels=24,
    )  # fmt: skip
    vae = component(
        "AutoencoderKLAllegro", sample_size=16, in_channels=3, out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    vae.enable_tiling()
    own = vae.decode
    # It takes one video at a time, which fklit gives it; the plain pipeline would fail.
    vae.decode = lambda z: DecoderOutput(torch.cat([own(row[None]).sample for row in z]))
    pipeline = assemble(
        "AllegroPipeline", transformer=transformer, vae=vae, scheduler=EulerAncestralDiscreteScheduler()
    )
    return encode_by(pipeline, embeds(24), mask(), embeds(24, negative=True), mask(negative=True))


ROWS = [
    Row("AllegroPipeline", "Allegro", _allegro, "rhymes-ai/Allegro", "video", main=True, loose=True,
        arguments={"height": 16, "width": 16, "num_frames": 24, "guidance_scale": 3.0}),
]  # fmt: skip
