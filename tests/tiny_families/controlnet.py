"""ControlNets of Stable Diffusion and SDXL, and T2I adapters."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import picture, rebuilt, recast
from tiny_families.row import Row
from tiny_families.stable_diffusion import MASK
from tiny_families.stable_diffusion_xl import GUIDED, SIZE

_V1, _XL = "ControlNet", "ControlNet (SDXL)"
_CANNY, _XL_CANNY = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"


def _control(name: str, base: Any, *, union: bool = False) -> Any:
    if union:
        from diffusers import ControlNetUnionModel

        net = ControlNetUnionModel.from_unet(base.unet)
        return recast(name, base, controlnet=net)
    return recast(name, base, controlnet=tiny_pipelines._controlnet(base.unet))


def _adapter(name: str, base: Any, *, xl: bool) -> Any:
    from diffusers import T2IAdapter

    kind = "full_adapter_xl" if xl else "full_adapter"
    net = T2IAdapter(
        in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=4 if xl else 2, adapter_type=kind
    )
    if xl:  # adds to what a first block without attention returns
        return recast(name, base, adapter=net)
    # A network that has cross-attention in its first block, as the real one: adapters add to what it returns.
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return recast(name, base, adapter=net, unet=rebuilt(base.unet, **blocks))


_IMAGES = {"image": picture(), "control_image": picture(seed=5), "strength": 0.8}
_INPAINT = {**_IMAGES, "mask_image": MASK, "strength": 1.0}

ROWS = [
    Row("StableDiffusionControlNetPipeline", _V1, tiny_pipelines.tiny_controlnet, _CANNY, main=True,
        arguments={"image": picture(), **GUIDED}),
    Row("StableDiffusionControlNetImg2ImgPipeline", _V1,
        lambda: _control("StableDiffusionControlNetImg2ImgPipeline", tiny.tiny_stable_diffusion()), _CANNY,
        arguments={**_IMAGES, **GUIDED}),
    Row("StableDiffusionControlNetInpaintPipeline", _V1,
        lambda: _control("StableDiffusionControlNetInpaintPipeline", tiny.tiny_stable_diffusion()), _CANNY,
        arguments={**_INPAINT, **GUIDED}),
    Row("StableDiffusionXLControlNetPipeline", _XL, tiny_pipelines.tiny_sdxl_controlnet, _XL_CANNY, main=True,
        arguments={"image": picture(), **GUIDED}),
    Row("StableDiffusionXLControlNetImg2ImgPipeline", _XL,
        lambda: _control("StableDiffusionXLControlNetImg2ImgPipeline", tiny.tiny_sdxl()), _XL_CANNY,
        arguments={**_IMAGES, **GUIDED}),
    Row("StableDiffusionXLControlNetInpaintPipeline", _XL,
        lambda: _control("StableDiffusionXLControlNetInpaintPipeline", tiny.tiny_sdxl()), _XL_CANNY,
        arguments={**_INPAINT, **GUIDED}),
    Row("StableDiffusionAdapterPipeline", "T2I-Adapter",
        lambda: _adapter("StableDiffusionAdapterPipeline", tiny.tiny_stable_diffusion(), xl=False), _CANNY, main=True,
        per_sample=("image",), arguments={**SIZE, "image": picture(), **GUIDED}),
    Row("StableDiffusionXLAdapterPipeline", "T2I-Adapter",
        lambda: _adapter("StableDiffusionXLAdapterPipeline", tiny.tiny_sdxl(), xl=True), _XL_CANNY,
        per_sample=("image",), arguments={**SIZE, "image": picture(), **GUIDED}),
]  # fmt: skip
