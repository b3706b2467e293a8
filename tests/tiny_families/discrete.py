"""Pictures of discrete tokens: aMUSEd, which unmasks them, and VQ-Diffusion."""

from typing import Any

import tiny

from tiny_families.components import assemble, picture
from tiny_families.row import Row


def _amused(name: str) -> Any:
    from diffusers import AmusedScheduler, UVit2DModel, VQModel
    from transformers import CLIPTextModelWithProjection

    network = UVit2DModel(
        hidden_size=8, use_bias=False, hidden_dropout=0.0, cond_embed_dim=16, micro_cond_encode_dim=2,
        micro_cond_embed_dim=10, encoder_hidden_size=16, vocab_size=32, codebook_size=8, in_channels=8,
        block_out_channels=8, num_res_blocks=1, downsample=True, upsample=True, block_num_heads=1,
        num_hidden_layers=1, num_attention_heads=1, attention_dropout=0.0, intermediate_size=8, layer_norm_eps=1e-6,
        ln_elementwise_affine=True, sample_size=8,
    )  # fmt: skip
    autoencoder = VQModel(
        block_out_channels=[8], down_block_types=["DownEncoderBlock2D"], in_channels=3, latent_channels=8,
        layers_per_block=1, norm_num_groups=8, num_vq_embeddings=8, out_channels=3, sample_size=8,
        up_block_types=["UpDecoderBlock2D"], mid_block_add_attention=False, lookup_from_codebook=True,
    )  # fmt: skip
    return assemble(
        name, vqvae=autoencoder.eval(), tokenizer=tiny.tiny_tokenizer(), transformer=network.eval(),
        text_encoder=CLIPTextModelWithProjection(tiny._text_config()).eval(),
        scheduler=AmusedScheduler(mask_token_id=31),
    )  # fmt: skip


def _vq_diffusion() -> Any:
    from diffusers import Transformer2DModel, VQDiffusionScheduler, VQModel
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )
    from transformers import CLIPTextModel

    network = Transformer2DModel(
        attention_head_dim=8, num_attention_heads=2, num_layers=1, cross_attention_dim=16, num_vector_embeds=9,
        num_embeds_ada_norm=4, sample_size=4, norm_num_groups=8, norm_type="ada_norm",
    )  # fmt: skip
    autoencoder = VQModel(
        block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, in_channels=3, latent_channels=3,
        layers_per_block=1, norm_num_groups=8, num_vq_embeddings=8, out_channels=3, sample_size=8,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip
    return assemble(
        "VQDiffusionPipeline", vqvae=autoencoder.eval(), tokenizer=tiny.tiny_tokenizer(), transformer=network.eval(),
        text_encoder=CLIPTextModel(tiny._text_config()).eval(), scheduler=VQDiffusionScheduler(num_vec_classes=9),
        learned_classifier_free_sampling_embeddings=LearnedClassifierFreeSamplingEmbeddings(False),
    )  # fmt: skip


ROWS = [
    Row("AmusedPipeline", "aMUSEd", lambda: _amused("AmusedPipeline"), "amused/amused-512", main=True,
        tokens=True),
    Row("AmusedImg2ImgPipeline", "aMUSEd", lambda: _amused("AmusedImg2ImgPipeline"), "amused/amused-512",
        arguments={"image": picture()}),
    Row("AmusedInpaintPipeline", "aMUSEd", lambda: _amused("AmusedInpaintPipeline"), "amused/amused-512",
        arguments={"image": picture(), "mask_image": picture()}),
    Row("VQDiffusionPipeline", "VQ-Diffusion", _vq_diffusion, "microsoft/vq-diffusion-ithq", main=True),
]  # fmt: skip
