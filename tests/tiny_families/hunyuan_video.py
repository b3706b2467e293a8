"""HunyuanVideo and HunyuanVideo 1.5."""

from typing import Any

from tiny_families.components import assemble, component, euler, pil
from tiny_families.encodings import embeds, encode_by, mask, pooled
from tiny_families.row import Row

_GIVEN = {"height": 16, "width": 16, "num_frames": 9}
_HUB = "hunyuanvideo-community/HunyuanVideo"


def _hunyuan(name: str, channels: int = 4, **options: Any) -> Any:
    transformer = component(
        "HunyuanVideoTransformer3DModel", in_channels=channels, out_channels=4, num_attention_heads=2,
        attention_head_dim=10, num_layers=1, num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1,
        text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4), **{"guidance_embeds": True, **options},
    )  # fmt: skip
    vae = component(
        "AutoencoderKLHunyuanVideo", in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.476986,
        spatial_compression_ratio=8, temporal_compression_ratio=4,
    )  # fmt: skip
    pipeline = assemble(name, transformer=transformer, vae=vae, scheduler=euler(shift=7.0))
    return encode_by(pipeline, embeds(16), pooled(8), mask())


ROWS = [
    Row("HunyuanVideoPipeline", "HunyuanVideo", lambda: _hunyuan("HunyuanVideoPipeline"), _HUB, "video", main=True,
        loose=True, arguments=_GIVEN),
    Row("HunyuanVideoImageToVideoPipeline", "HunyuanVideo", lambda: _hunyuan("HunyuanVideoImageToVideoPipeline", 9,
        image_condition_type="latent_concat", guidance_embeds=False), "hunyuanvideo-community/HunyuanVideo-I2V",
        "video", loose=True, per_sample=("image",), arguments={**_GIVEN, "image": [pil(16)]}),
    Row("HunyuanSkyreelsImageToVideoPipeline", "HunyuanVideo",
        lambda: _hunyuan("HunyuanSkyreelsImageToVideoPipeline", 8), "hunyuanvideo-community/SkyReels-V1-Hunyuan-I2V",
        "video", loose=True, per_sample=("image",), arguments={**_GIVEN, "image": [pil(16)]}),
]  # fmt: skip
