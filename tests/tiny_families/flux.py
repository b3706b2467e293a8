"""FLUX.1: dev and schnell with distilled guidance, and its img2img, editing, filling and control classes."""

from typing import Any

from tiny_families.components import assemble, component, euler, kl, picture
from tiny_families.encodings import embeds, encode_by, ids, pooled
from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}


def _parts(channels: int = 4, out: int | None = None) -> dict[str, Any]:
    transformer = component(
        "FluxTransformer2DModel", patch_size=1, in_channels=channels, out_channels=out, attention_head_dim=16,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=True,
    )  # fmt: skip
    return {"scheduler": euler(use_dynamic_shifting=True), "vae": kl(1), "transformer": transformer}


def _flux(name: str, **parts: Any) -> Any:
    return encode_by(assemble(name, **{**_parts(), **parts}), embeds(32), pooled(32), ids(3))


ROWS = [
    Row(
        "FluxPipeline", "FLUX.1", lambda: _flux("FluxPipeline"), "black-forest-labs/FLUX.1-dev", main=True,
        arguments=_SQUARE,
    ),
    Row(
        "FluxImg2ImgPipeline", "FLUX.1", lambda: _flux("FluxImg2ImgPipeline"), "black-forest-labs/FLUX.1-dev",
        arguments={**_SQUARE, "image": picture(), "strength": 0.8},
    ),
    Row(
        "FluxKontextPipeline", "FLUX.1", lambda: _flux("FluxKontextPipeline"), "black-forest-labs/FLUX.1-Kontext-dev",
        arguments={**_SQUARE, "image": picture(), "max_area": 256, "_auto_resize": False},
    ),
]  # fmt: skip
