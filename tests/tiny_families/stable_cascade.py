"""Stable Cascade (Wuerstchen 3): a prior of embeddings and a decoder of them."""

from typing import Any

from tiny_families.components import assemble, component, perturb
from tiny_families.encodings import Part, embeds, encode_by, encoding
from tiny_families.row import Row


def _decoder() -> Any:
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

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
    vqgan = PaellaVQModel(
        up_down_scale_factor=2, levels=2, bottleneck_blocks=1, embed_dim=16, latent_channels=4, num_vq_embeddings=8
    )
    perturb(vqgan)
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
