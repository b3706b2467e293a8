"""Recent text-to-image families of one class: GLM-Image, ERNIE, Nucleus, Krea 2, Ideogram 4, DreamLite."""

from typing import Any

import tiny
import tiny_flow
import torch

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import TOKENS, Part, embeds, encode_by, encoding, mask
from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}
_GUIDED = {"guidance_scale": 3.0}


def _glm() -> Any:
    network = component(
        "GlmImageTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        text_embed_dim=16, time_embed_dim=16, condition_dim=8, prior_vq_quantizer_codebook_size=16,
    )  # fmt: skip
    scheduler = euler(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear")
    vae = kl(4, latents_mean=[0.1] * 4, latents_std=[1.5] * 4)
    pipeline = encode_by(
        assemble("GlmImagePipeline", transformer=network, scheduler=scheduler, vae=vae), embeds(16),
        embeds(16, negative=True),
    )  # fmt: skip

    def generate_prior_tokens(prompt: Any, height: int, width: int, **ignored: Any) -> Any:
        """Token ids of a prior picture of each prompt, at random."""
        count = (height // 4) * (width // 4)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return (encoding(prompts, count).abs() * 7 % 16).long(), None, None

    pipeline.generate_prior_tokens = generate_prior_tokens
    return pipeline


def _ernie() -> Any:
    network = component(
        "ErnieImageTransformer2DModel", hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32,
        in_channels=16, out_channels=16, patch_size=1, text_in_dim=16, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    vae = component(
        "AutoencoderKLFlux2", sample_size=32, block_out_channels=(4, 4), layers_per_block=1, latent_channels=4,
        norm_num_groups=1, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        in_channels=3, out_channels=3, patch_size=(2, 2),
    )  # fmt: skip
    vae.bn.running_mean.fill_(0.1)
    vae.bn.running_var.fill_(1.5)
    pipeline = assemble("ErnieImagePipeline", transformer=network, vae=vae, scheduler=euler())
    return encode_by(pipeline, embeds(16, listed=True), alone=True)


def _nucleus() -> Any:
    network = component(
        "NucleusMoEImageTransformer2DModel", patch_size=2, in_channels=16, out_channels=4, num_layers=2,
        attention_head_dim=16, num_attention_heads=3, num_key_value_heads=3, joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4), moe_enabled=True, num_experts=4, moe_intermediate_dim=16, capacity_factors=1.0,
        dense_moe_strategy="leave_first_block_dense",
    )  # fmt: skip
    for number, parameter in enumerate(network.parameters()):
        if parameter.ndim == 3:  # experts are left uninitialized
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(number))
    vae = tiny_flow.qwen_image().vae
    scheduler = euler(use_dynamic_shifting=True)
    pipeline = assemble("NucleusMoEImagePipeline", transformer=network, scheduler=scheduler, vae=vae)
    return encode_by(pipeline, embeds(16), mask())


def _krea() -> Any:
    network = component(
        "Krea2Transformer2DModel", in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, timestep_embed_dim=16, text_hidden_dim=16, num_text_layers=2,
        text_num_attention_heads=1, text_num_key_value_heads=1, text_intermediate_size=16,
        num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    pipeline = assemble(
        "Krea2Pipeline", transformer=network, scheduler=euler(use_dynamic_shifting=True),
        vae=tiny_flow.qwen_image().vae,
    )  # fmt: skip
    return encode_by(pipeline, Part((TOKENS, 2, 16)), mask(dtype=torch.bool))


def _ideogram() -> Any:
    shape = {
        "in_channels": 16, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
        "intermediate_size": 32, "adaln_dim": 8, "llm_features_dim": 16, "mrope_section": (4, 2, 2),
    }  # fmt: skip
    vae = component(
        "AutoencoderKLFlux2", sample_size=32, block_out_channels=(4,) * 5, layers_per_block=1, latent_channels=4,
        norm_num_groups=1, down_block_types=("DownEncoderBlock2D",) * 5, up_block_types=("UpDecoderBlock2D",) * 5,
        in_channels=3, out_channels=3, patch_size=(2, 2),
    )  # fmt: skip
    pipeline = assemble(
        "Ideogram4Pipeline", transformer=component("Ideogram4Transformer2DModel", **shape),
        unconditional_transformer=component("Ideogram4Transformer2DModel", seed=1, **shape), scheduler=euler(),
        vae=vae,
    )  # fmt: skip

    def encode_prompt(prompt: Any, grid_h: int, grid_w: int, max_sequence_length: int, device: Any) -> Any:
        prompts = [prompt] if isinstance(prompt, str) else prompt
        texts = encoding(prompts, max_sequence_length, 16)
        features = torch.cat([texts, torch.zeros(len(prompts), grid_h * grid_w, 16)], dim=1)
        lengths = [max_sequence_length] * len(prompts)
        return features, *pipeline._prepare_ids(lengths, grid_h, grid_w, max_sequence_length, torch.device("cpu"))

    pipeline.encode_prompt = encode_prompt
    return pipeline


def _dreamlite() -> Any:
    from transformers import CLIPTextModel

    network = component(
        "DreamLiteUNetModel", sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64),
        down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteCrossAttnNoSelfAttnUpBlock2D"), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=16, attention_head_dim=8, num_attention_heads=None,
        addition_embed_type="time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=16, transformer_layers_per_block=1,
        encoder_hid_dim=16, encoder_hid_dim_type="text_proj", use_linear_projection=True,
    )  # fmt: skip
    pipeline = assemble(
        "DreamLitePipeline", unet=network, vae=kl(4), scheduler=euler(use_dynamic_shifting=True),
        text_encoder=CLIPTextModel(tiny._text_config()),
    )  # fmt: skip

    def encode_prompt(mode: str, prompts: Any, **ignored: Any) -> Any:
        return encoding(prompts, TOKENS, 16), torch.ones(len(prompts), TOKENS, dtype=torch.long)

    pipeline.encode_prompt = encode_prompt
    return pipeline


ROWS = [
    Row("GlmImagePipeline", "GLM-Image", _glm, "zai-org/GLM-Image", main=True, arguments={**_SQUARE, **_GUIDED}),
    Row("ErnieImagePipeline", "ERNIE-Image", _ernie, "baidu/ERNIE-Image", main=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("NucleusMoEImagePipeline", "Nucleus-Image", _nucleus, "NucleusAI/Nucleus-Image", main=True, loose=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("Krea2Pipeline", "Krea 2", _krea, "krea/Krea-2-Raw", main=True, arguments={**_SQUARE, **_GUIDED}),
    Row("Ideogram4Pipeline", "Ideogram 4", _ideogram, "ideogram-ai/ideogram-4-fp8", main=True,
        arguments={"height": 64, "width": 64, "guidance_scale": 3.0, "guidance_schedule": None,
                   "max_sequence_length": TOKENS}),
    Row("DreamLitePipeline", "DreamLite", _dreamlite, "carlofkl/DreamLite-base", main=True, prompts=("a cat",),
        bare=True, arguments={**_SQUARE, **_GUIDED}),
]  # fmt: skip
