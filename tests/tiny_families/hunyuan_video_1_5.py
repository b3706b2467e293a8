"""HunyuanVideo 1.5: guidance by a guider."""

from typing import Any

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row


def _hunyuan() -> Any:
    from diffusers import ClassifierFreeGuidance

    transformer = component(
        "HunyuanVideo15Transformer3DModel", in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        num_layers=2, num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16,
        text_embed_2_dim=8, image_embed_dim=12, rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
    )  # fmt: skip
    vae = component(
        "AutoencoderKLHunyuanVideo15", in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16),
        layers_per_block=1, spatial_compression_ratio=4, temporal_compression_ratio=2, downsample_match_channel=False,
        upsample_match_channel=False,
    )  # fmt: skip
    pipeline = assemble(
        "HunyuanVideo15Pipeline", transformer=transformer, vae=vae, scheduler=euler(shift=7.0),
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )  # fmt: skip
    vae.enable_slicing()  # without it the plain pipeline would fail for more than one video
    pipeline.vision_num_semantic_tokens, pipeline.vision_states_dim = 4, 12
    return encode_by(pipeline, embeds(16), mask(), embeds(8), mask())


ROWS = [
    Row("HunyuanVideo15Pipeline", "HunyuanVideo 1.5", _hunyuan,
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", "video", main=True, loose=True,
        arguments={"height": 16, "width": 16, "num_frames": 5}),
]  # fmt: skip
