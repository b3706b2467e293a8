"""HunyuanDiT and HunyuanImage 2.1."""

from typing import Any

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import TOKENS, embeds, encode_by, mask
from tiny_families.row import Row


def _dit(name: str, **parts: Any) -> Any:
    from diffusers import DDPMScheduler
    from transformers import BertConfig, BertModel

    transformer = component(
        "HunyuanDiT2DModel", sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        in_channels=4, cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
        activation_fn="gelu-approximate", text_len=TOKENS, text_len_t5=TOKENS,
    )  # fmt: skip
    bert = BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=190)
    )
    pipeline = assemble(
        name, transformer=transformer, vae=component("AutoencoderKL"), scheduler=DDPMScheduler(), text_encoder=bert,
        requires_safety_checker=False, **parts,
    )  # fmt: skip
    return encode_by(pipeline, embeds(32), embeds(32, negative=True), mask(), mask(negative=True))


def _control() -> Any:
    net = component(
        "HunyuanDiT2DControlNetModel", sample_size=8, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        in_channels=4, cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
        activation_fn="gelu-approximate", text_len=TOKENS, text_len_t5=TOKENS, transformer_num_layers=2,
    )  # fmt: skip
    return _dit("HunyuanDiTControlNetPipeline", controlnet=net)


def _image() -> Any:
    from diffusers import ClassifierFreeGuidance

    transformer = component(
        "HunyuanImageTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=(1, 1), text_embed_dim=16,
        text_embed_2_dim=16, rope_axes_dim=(4, 4),
    )  # fmt: skip
    vae = component(
        "AutoencoderKLHunyuanImage", in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32),
        layers_per_block=1, spatial_compression_ratio=2, sample_size=16, scaling_factor=0.7,
    )  # fmt: skip
    pipeline = assemble(
        "HunyuanImagePipeline", transformer=transformer, scheduler=euler(shift=3.0), vae=vae,
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )  # fmt: skip
    tokens = embeds(16), mask()
    return encode_by(pipeline, *tokens, *tokens)


_GIVEN = {"height": 16, "width": 16}
ROWS = [
    Row("HunyuanDiTPipeline", "HunyuanDiT", lambda: _dit("HunyuanDiTPipeline"),
        "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", main=True,
        arguments={**_GIVEN, "use_resolution_binning": False, "guidance_scale": 3.0}),
    Row("HunyuanDiTPAGPipeline", "PAG", lambda: _dit("HunyuanDiTPAGPipeline", pag_applied_layers=["blocks.0"]),
        "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers",
        arguments={**_GIVEN, "use_resolution_binning": False, "guidance_scale": 3.0, "pag_scale": 2.0}),
    Row("HunyuanImagePipeline", "HunyuanImage", _image, "hunyuanvideo-community/HunyuanImage-2.1-Diffusers",
        main=True, arguments=_GIVEN),
]  # fmt: skip
