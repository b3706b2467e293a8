"""Sana: a deep-compression autoencoder; Sprint is its consistency model."""

from typing import Any

import tiny_flow

from tiny_families.components import component, picture, rebuilt, recast
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "use_resolution_binning": False}
_GUIDED = {"guidance_scale": 3.0}
_HUB = "Efficient-Large-Model/Sana_1600M_1024px_diffusers"
_SPRINT = "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers"


def _sprint(name: str) -> Any:
    from diffusers import SCMScheduler

    base = tiny_flow.sana()
    network = rebuilt(base.transformer, guidance_embeds=True, qk_norm="rms_norm_across_heads")
    pipeline = recast(name, base, scheduler=SCMScheduler(), transformer=network)
    return encode_by(pipeline, embeds(8), mask())


def _control() -> Any:
    base = tiny_flow.sana()
    shape = {"num_attention_heads": 2, "attention_head_dim": 4, "num_cross_attention_heads": 2,
             "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": 8}  # fmt: skip
    net = component("SanaControlNetModel", patch_size=1, sample_size=32, **shape)
    # Two blocks: what the net returns is added after the first.
    return recast("SanaControlNetPipeline", base, controlnet=net, transformer=rebuilt(base.transformer, num_layers=2))


ROWS = [
    Row("SanaPipeline", "Sana", tiny_flow.sana, _HUB, main=True, loose=True, arguments={**_GIVEN, **_GUIDED}),
    Row("SanaSprintPipeline", "Sana", lambda: _sprint("SanaSprintPipeline"), _SPRINT, loose=True, steps=2,
        arguments={**_GIVEN, **_GUIDED}),
    Row("SanaSprintImg2ImgPipeline", "Sana", lambda: _sprint("SanaSprintImg2ImgPipeline"), _SPRINT, loose=True,
        steps=2, arguments={**_GIVEN, "image": picture(32), "strength": 0.5, **_GUIDED}),
    Row("SanaControlNetPipeline", "Sana", _control, "ishan24/Sana_600M_1024px_ControlNetPlus_diffusers", loose=True,
        arguments={**_GIVEN, "control_image": picture(32), **_GUIDED}),
]  # fmt: skip
