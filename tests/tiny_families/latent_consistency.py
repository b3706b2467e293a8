"""Latent consistency models."""

from typing import Any

import tiny

from tiny_families.components import picture, recast
from tiny_families.row import Row


def _lcm(name: str) -> Any:
    from diffusers import LCMScheduler

    base = tiny.tiny_stable_diffusion()
    unet = tiny._unet(time_cond_proj_dim=8)
    return recast(name, base, unet=unet, scheduler=LCMScheduler(beta_schedule="scaled_linear", clip_sample=False))


ROWS = [
    Row("LatentConsistencyModelPipeline", "Latent consistency models",
        lambda: _lcm("LatentConsistencyModelPipeline"), "SimianLuo/LCM_Dreamshaper_v7", main=True,
        arguments={"height": 16, "width": 16}),
    Row("LatentConsistencyModelImg2ImgPipeline", "Latent consistency models",
        lambda: _lcm("LatentConsistencyModelImg2ImgPipeline"), "SimianLuo/LCM_Dreamshaper_v7",
        arguments={"image": picture(), "strength": 0.8}),
]  # fmt: skip
