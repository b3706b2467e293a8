"""Pipelines without texts: pixels and class labels."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import recast
from tiny_families.row import Row


def _consistency() -> Any:
    from diffusers import CMStochasticIterativeScheduler

    unet = tiny.tiny_ddpm().unet
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_min=0.002, sigma_max=80.0)
    return recast("ConsistencyModelPipeline", tiny.tiny_ddpm(), unet=unet, scheduler=scheduler)


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return recast("DDIMPipeline", tiny.tiny_ddpm(), scheduler=DDIMScheduler())


ROWS = [
    Row("DDPMPipeline", "DDPM", tiny.tiny_ddpm, "google/ddpm-cat-256", main=True, prompts=None),
    Row("DDIMPipeline", "DDIM", _ddim, "google/ddpm-cat-256", main=True, prompts=None),
    Row("DiTPipeline", "DiT", tiny_pipelines.tiny_dit, "facebook/DiT-XL-2-256", main=True, prompts=None,
        per_sample=("class_labels",), arguments={"class_labels": [1, 2], "guidance_scale": 1.0},
        shown=("guidance_scale",)),
    Row("ConsistencyModelPipeline", "Consistency models", _consistency, "openai/diffusers-cd_imagenet64_l2",
        main=True, prompts=None),
]  # fmt: skip
