"""SDXL: base, img2img (the refiner's class), inpainting, editing."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import picture, rebuilt, recast
from tiny_families.row import Row
from tiny_families.stable_diffusion import MASK

SIZE = {"height": 16, "width": 16}
GUIDED = {"guidance_scale": 3.0}
BASE = "stabilityai/stable-diffusion-xl-base-1.0"


def with_channels(name: str, channels: int) -> Any:
    """An SDXL pipeline of another class whose network has that many input channels."""
    base = tiny.tiny_sdxl()
    return recast(name, base, unet=rebuilt(base.unet, in_channels=channels))


ROWS = [
    Row("StableDiffusionXLPipeline", "SDXL", tiny.tiny_sdxl, BASE, main=True, arguments={**SIZE, **GUIDED}),
    Row("StableDiffusionXLImg2ImgPipeline", "SDXL", tiny_pipelines.tiny_sdxl_img2img,
        "stabilityai/stable-diffusion-xl-refiner-1.0", arguments={"image": picture(), "strength": 0.8, **GUIDED}),
    Row("StableDiffusionXLInpaintPipeline", "SDXL", lambda: with_channels("StableDiffusionXLInpaintPipeline", 9),
        "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        arguments={**SIZE, "image": picture(), "mask_image": MASK, "strength": 1.0, **GUIDED}),
    Row("StableDiffusionXLInstructPix2PixPipeline", "SDXL",
        lambda: with_channels("StableDiffusionXLInstructPix2PixPipeline", 8), "diffusers/sdxl-instructpix2pix-768",
        arguments={**SIZE, "image": picture(), **GUIDED}),
]  # fmt: skip
