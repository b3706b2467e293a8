"""Latent diffusion (CompVis): text-to-image and super-resolution."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import assemble, picture
from tiny_families.row import Row


def _text() -> Any:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    bert = LDMBertModel(
        LDMBertConfig(vocab_size=200, d_model=16, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2,
                      head_dim=8, max_position_embeddings=80)
    )  # fmt: skip
    base = tiny.tiny_stable_diffusion()
    return assemble("LDMTextToImagePipeline", vqvae=base.vae, bert=bert, tokenizer=base.tokenizer, unet=base.unet,
                    scheduler=base.scheduler)  # fmt: skip


ROWS = [
    Row("LDMTextToImagePipeline", "Latent diffusion", _text, "CompVis/ldm-text2im-large-256", main=True,
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0}),
    Row("LDMSuperResolutionPipeline", "Latent diffusion", tiny_pipelines.tiny_ldm_super_resolution,
        "CompVis/ldm-super-resolution-4x-openimages", prompts=None, per_sample=("image",),
        arguments={"image": picture(rows=2) * 2 - 1}),
]  # fmt: skip
