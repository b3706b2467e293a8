"""Perturbed-attention guidance (PAG), a third prediction beside those of classifier-free guidance."""

from typing import Any

import tiny
import tiny_flow
import tiny_pipelines

from tiny_families.components import picture, recast
from tiny_families.row import Row

_GUIDED = {"guidance_scale": 3.0, "pag_scale": 2.0}
_SIZE = {"height": 16, "width": 16}
_V1, _XL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"


def _perturbed(name: str, base: Any, layers: str = "mid", **parts: Any) -> Any:
    return recast(name, base, pag_applied_layers=[layers], **parts)


def _control(name: str, base: Any) -> Any:
    return _perturbed(name, base, controlnet=tiny_pipelines._controlnet(base.unet))


ROWS = [
    Row("StableDiffusionPAGPipeline", "PAG",
        lambda: _perturbed("StableDiffusionPAGPipeline", tiny.tiny_stable_diffusion()), _V1, main=True,
        arguments={**_SIZE, **_GUIDED}),
    Row("StableDiffusionPAGImg2ImgPipeline", "PAG",
        lambda: _perturbed("StableDiffusionPAGImg2ImgPipeline", tiny.tiny_stable_diffusion()), _V1,
        arguments={"image": picture(), "strength": 0.8, **_GUIDED}),
    Row("StableDiffusionControlNetPAGPipeline", "PAG",
        lambda: _control("StableDiffusionControlNetPAGPipeline", tiny.tiny_stable_diffusion()), _V1,
        arguments={"image": picture(), **_GUIDED}),
    Row("StableDiffusionXLPAGPipeline", "PAG", lambda: _perturbed("StableDiffusionXLPAGPipeline", tiny.tiny_sdxl()),
        _XL, arguments={**_SIZE, **_GUIDED}),
    Row("StableDiffusionXLPAGImg2ImgPipeline", "PAG",
        lambda: _perturbed("StableDiffusionXLPAGImg2ImgPipeline", tiny.tiny_sdxl()), _XL,
        arguments={"image": picture(), "strength": 0.8, **_GUIDED}),
    Row("StableDiffusionXLControlNetPAGPipeline", "PAG",
        lambda: _control("StableDiffusionXLControlNetPAGPipeline", tiny.tiny_sdxl()), _XL,
        arguments={"image": picture(), **_GUIDED}),
    Row("StableDiffusion3PAGPipeline", "PAG",
        lambda: _perturbed("StableDiffusion3PAGPipeline", tiny_flow.stable_diffusion_3(), "blocks.0"),
        "stabilityai/stable-diffusion-3-medium-diffusers", arguments={**_SIZE, **_GUIDED}),
    Row("SanaPAGPipeline", "PAG",
        lambda: _perturbed("SanaPAGPipeline", tiny_flow.sana(), "transformer_blocks.0"),
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers", loose=True,
        arguments={"height": 32, "width": 32, "use_resolution_binning": False, **_GUIDED}),
]  # fmt: skip
