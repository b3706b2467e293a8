"""Stable Cascade (Wuerstchen 3): a prior of embeddings and a decoder of them."""

from typing import Any

from tiny_families.components import assemble, component
from tiny_families.encodings import Part, embeds, encode_by, encoding
from tiny_families.row import Row


def _decoder() -> Any:
    from diffusers import DDPMWuerstchenScheduler

    network = component(
        "StableCascadeUNet", in_channels=4, out_channels=4, conditioning_dim=16, block_out_channels=(16, 16),
        num_attention_heads=(-1, 2), down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1), up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(
            ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
            ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
        ), timestep_ratio_embedding_dim=8, patch_size=1, clip_text_pooled_in_channels=16, effnet_in_channels=4,
        kernel_size=3, dropout=(0.0, 0.0), self_attn=True, switch_level=(True,),
    )  # fmt: skip
    vqgan = component(
        "VQModel", in_channels=3, out_channels=3, latent_channels=4,
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, num_vq_embeddings=8,
    )  # fmt: skip
    pipeline = assemble(
        "StableCascadeDecoderPipeline", decoder=network, scheduler=DDPMWuerstchenScheduler(), vqgan=vqgan,
        latent_dim_scale=4.0,
    )  # fmt: skip
    return encode_by(pipeline, embeds(16), Part((1, 16)), embeds(16, negative=True), Part((1, 16), negative=True))


ROWS = [
    Row("StableCascadeDecoderPipeline", "Stable Cascade", _decoder, "stabilityai/stable-cascade", main=True,
        per_sample=("image_embeddings",),
        arguments={"image_embeddings": encoding(("a", "b"), 4, 4, 4), "guidance_scale": 2.0}),
]  # fmt: skip
