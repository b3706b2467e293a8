"""Stable Diffusion 3 and 3.5."""

from typing import Any

import tiny_flow

from tiny_families.components import component, kl, picture, rebuilt, recast
from tiny_families.row import Row
from tiny_families.stable_diffusion import MASK

_SIZE = {"height": 16, "width": 16}
_GUIDED = {"guidance_scale": 3.0}
_HUB = "stabilityai/stable-diffusion-3.5-medium"
_FAMILY = "Stable Diffusion 3"


def _recast(name: str, **parts: Any) -> Any:
    return recast(name, tiny_flow.stable_diffusion_3(), **parts)


def _inpaint() -> Any:
    network = rebuilt(tiny_flow.stable_diffusion_3().transformer, in_channels=16, out_channels=16)
    return _recast("StableDiffusion3InpaintPipeline", transformer=network, vae=kl(16))


def _control(name: str) -> Any:
    net = component(
        "SD3ControlNetModel", sample_size=32, patch_size=1, num_attention_heads=4, caption_projection_dim=32,
        joint_attention_dim=32,
    )  # fmt: skip
    return _recast(name, controlnet=net)


ROWS = [
    Row("StableDiffusion3Pipeline", _FAMILY, tiny_flow.stable_diffusion_3, _HUB, main=True,
        arguments={**_SIZE, **_GUIDED}),
    Row("StableDiffusion3Img2ImgPipeline", _FAMILY, lambda: _recast("StableDiffusion3Img2ImgPipeline"), _HUB,
        per_sample=("image",), arguments={**_SIZE, "image": picture(), "strength": 0.8, **_GUIDED}),
    Row("StableDiffusion3InpaintPipeline", _FAMILY, _inpaint, _HUB,
        arguments={**_SIZE, "image": picture(), "mask_image": MASK, "strength": 0.8, **_GUIDED}),
    Row("StableDiffusion3ControlNetPipeline", _FAMILY, lambda: _control("StableDiffusion3ControlNetPipeline"), _HUB,
        arguments={**_SIZE, "control_image": picture(), **_GUIDED}),
    Row("StableDiffusion3PAGImg2ImgPipeline", "PAG",
        lambda: _recast("StableDiffusion3PAGImg2ImgPipeline", pag_applied_layers=["blocks.0"]), _HUB,
        per_sample=("image",), arguments={**_SIZE, "image": picture(), "strength": 0.8, "pag_scale": 2.0, **_GUIDED}),
]  # fmt: skip
