"""CogView3-Plus and the control class of CogView4."""

from typing import Any

import tiny_flow

from tiny_families.components import assemble, component, picture, rebuilt, recast
from tiny_families.encodings import embeds, encode_by
from tiny_families.row import Row

_GIVEN = {"height": 16, "width": 16, "guidance_scale": 3.0}


def _plus() -> Any:
    from diffusers import CogVideoXDDIMScheduler

    transformer = component(
        "CogView3PlusTransformer2DModel", attention_head_dim=4, num_attention_heads=2, text_embed_dim=32,
        time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    pipeline = assemble(
        "CogView3PlusPipeline", transformer=transformer, scheduler=scheduler, vae=component("AutoencoderKL")
    )
    return encode_by(pipeline, embeds(32), embeds(32, negative=True))


def _control() -> Any:
    base = tiny_flow.cogview_4()
    return recast("CogView4ControlPipeline", base, transformer=rebuilt(base.transformer, in_channels=8))


ROWS = [
    Row("CogView3PlusPipeline", "CogView3", _plus, "THUDM/CogView3-Plus-3B", main=True, arguments=_GIVEN),
    Row("CogView4ControlPipeline", "CogView4", _control, "THUDM/CogView4-6B-Control", prompts=("a cat",),
        arguments={**_GIVEN, "control_image": picture()}),
]  # fmt: skip
