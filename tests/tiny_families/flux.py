"""FLUX.1: dev and schnell with distilled guidance, and its img2img, editing, filling and control classes."""

from typing import Any

from tiny_families.components import assemble, component, euler, kl, picture
from tiny_families.encodings import embeds, encode_by, ids, pooled
from tiny_families.row import Row
from tiny_families.stable_diffusion import MASK

_SQUARE = {"height": 16, "width": 16}
_FAMILY = "FLUX.1"
_DEV = "black-forest-labs/FLUX.1-dev"
_EDITED = {"image": picture(), "strength": 0.8}
_KONTEXT = {"max_area": 256, "_auto_resize": False}


def transformer(channels: int = 4, **options: Any) -> Any:
    """A tiny network of FLUX.1 with that many input channels and 4 output channels."""
    given: dict[str, Any] = {
        "patch_size": 1, "in_channels": channels, "out_channels": 4, "attention_head_dim": 16,
        "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": [4, 4, 8], "guidance_embeds": True,
    }  # fmt: skip
    return component("FluxTransformer2DModel", **{**given, **options})


def _flux(name: str, channels: int = 4, **parts: Any) -> Any:
    given = {"scheduler": euler(use_dynamic_shifting=True), "vae": kl(1), "transformer": transformer(channels)}
    return encode_by(assemble(name, **{**given, **parts}), embeds(32), pooled(32), ids(3))


def _control(name: str) -> Any:
    net = component(
        "FluxControlNetModel", patch_size=1, attention_head_dim=16, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8], guidance_embeds=True,
    )  # fmt: skip
    return _flux(name, controlnet=net)


ROWS = [
    Row("FluxPipeline", _FAMILY, lambda: _flux("FluxPipeline"), _DEV, main=True, arguments=_SQUARE),
    Row("FluxImg2ImgPipeline", _FAMILY, lambda: _flux("FluxImg2ImgPipeline"), _DEV,
        per_sample=("image",), arguments={**_SQUARE, **_EDITED}),
    Row("FluxInpaintPipeline", _FAMILY, lambda: _flux("FluxInpaintPipeline"), _DEV,
        arguments={**_SQUARE, **_EDITED, "mask_image": MASK}),
    Row("FluxKontextPipeline", _FAMILY, lambda: _flux("FluxKontextPipeline"),
        "black-forest-labs/FLUX.1-Kontext-dev", arguments={**_SQUARE, "image": picture(), **_KONTEXT}),
    Row("FluxKontextInpaintPipeline", _FAMILY, lambda: _flux("FluxKontextInpaintPipeline"),
        "black-forest-labs/FLUX.1-Kontext-dev",
        arguments={**_SQUARE, **_EDITED, "mask_image": MASK, **_KONTEXT}),
    Row("FluxFillPipeline", _FAMILY, lambda: _flux("FluxFillPipeline", 4 + 4 + 16),
        "black-forest-labs/FLUX.1-Fill-dev", arguments={**_SQUARE, "image": picture(), "mask_image": MASK}),
    Row("FluxControlPipeline", _FAMILY, lambda: _flux("FluxControlPipeline", 8),
        "black-forest-labs/FLUX.1-Canny-dev", arguments={**_SQUARE, "control_image": picture()}),
    Row("FluxControlImg2ImgPipeline", _FAMILY, lambda: _flux("FluxControlImg2ImgPipeline", 8),
        "black-forest-labs/FLUX.1-Canny-dev", arguments={**_SQUARE, **_EDITED, "control_image": picture(seed=5)}),
    Row("FluxControlNetPipeline", _FAMILY, lambda: _control("FluxControlNetPipeline"), _DEV,
        arguments={**_SQUARE, "control_image": picture()}),
    Row("FluxControlNetImg2ImgPipeline", _FAMILY, lambda: _control("FluxControlNetImg2ImgPipeline"), _DEV,
        arguments={**_SQUARE, **_EDITED, "control_image": picture(seed=5)}),
]  # fmt: skip
