"""EasyAnimate."""

from typing import Any

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row


def _easyanimate() -> Any:
    transformer = component(
        "EasyAnimateTransformer3DModel", num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        time_embed_dim=2, text_embed_dim=16, num_layers=1, mmdit_layers=1, sample_width=16, sample_height=16,
        patch_size=2,
    )  # fmt: skip
    vae = component(
        "AutoencoderKLMagvit", in_channels=3, out_channels=3,
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3), block_out_channels=(8, 8, 8, 8),
        latent_channels=4, layers_per_block=1, norm_num_groups=2, spatial_group_norm=False,
    )  # fmt: skip
    pipeline = assemble("EasyAnimatePipeline", transformer=transformer, vae=vae, scheduler=euler())
    return encode_by(pipeline, embeds(16), embeds(16, negative=True), mask(), mask(negative=True))


ROWS = [
    Row("EasyAnimatePipeline", "EasyAnimate", _easyanimate, "alibaba-pai/EasyAnimateV5.1-7b-zh-diffusers", "video",
        main=True, loose=True, arguments={"height": 16, "width": 16, "num_frames": 5, "guidance_scale": 3.0}),
]  # fmt: skip
