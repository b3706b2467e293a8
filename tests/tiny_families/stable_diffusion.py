"""Stable Diffusion 1.x and 2.x: text-to-image, img2img, inpainting."""

import tiny

from tiny_families.components import picture
from tiny_families.row import Row

_SIZE = {"height": 16, "width": 16}

ROWS = [
    Row(
        "StableDiffusionPipeline", "Stable Diffusion", tiny.tiny_stable_diffusion,
        "stable-diffusion-v1-5/stable-diffusion-v1-5", main=True, arguments={**_SIZE, "guidance_scale": 3.0},
    ),
    Row(
        "StableDiffusionImg2ImgPipeline", "Stable Diffusion", tiny.tiny_img2img,
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        arguments={"image": picture(), "strength": 0.8, "guidance_scale": 3.0},
    ),
    Row(
        "StableDiffusionInpaintPipeline", "Stable Diffusion", tiny.tiny_inpaint,
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
        arguments={
            **_SIZE, "image": picture(), "mask_image": (picture(seed=4)[:, :1] > 0.5).float(), "strength": 1.0,
            "guidance_scale": 3.0,
        },
    ),
]  # fmt: skip
