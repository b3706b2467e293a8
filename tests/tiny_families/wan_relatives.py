"""Models with Wan's networks: ChronoEdit, Lucy Edit, AnyFlow and MotifVideo."""

from typing import Any

import tiny_pipelines

from tiny_families.components import assemble, component, euler, pil
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row
from tiny_families.wan import wan

_GIVEN = {"height": 16, "width": 16, "num_frames": 5, "guidance_scale": 3.0}
_SHAPE = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": 32, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip


def _chronoedit() -> Any:
    from transformers import CLIPImageProcessor

    options = {**_SHAPE, "in_channels": 36, "image_dim": 16}
    return wan(
        "ChronoEditPipeline", transformer=component("ChronoEditTransformer3DModel", **options),
        scheduler=euler(shift=5.0), image_encoder=tiny_pipelines._image_encoder(),
        image_processor=CLIPImageProcessor(size=16, crop_size=16),
    )  # fmt: skip


def _lucy() -> Any:
    transformer = component("WanTransformer3DModel", **{**_SHAPE, "in_channels": 32})
    return wan("LucyEditPipeline", transformer=transformer, transformer_2=None, scheduler=euler(shift=5.0))


def _anyflow() -> Any:
    from diffusers import FlowMapEulerDiscreteScheduler

    transformer = component("AnyFlowTransformer3DModel", **_SHAPE)
    return wan("AnyFlowPipeline", transformer=transformer, scheduler=FlowMapEulerDiscreteScheduler())


def _motif(name: str = "MotifVideoPipeline") -> Any:
    from diffusers import ClassifierFreeGuidance

    transformer = component(
        "MotifVideoTransformer3DModel", in_channels=33, out_channels=16, num_attention_heads=2, attention_head_dim=12,
        num_layers=1, num_single_layers=1, mlp_ratio=2.0, patch_size=2, patch_size_t=1, text_embed_dim=16,
        rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    pipeline = assemble(
        name, transformer=transformer, vae=component("AutoencoderKLWan"), scheduler=euler(shift=5.0),
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )  # fmt: skip
    return encode_by(pipeline, embeds(16), embeds(16, negative=True), mask(), mask(negative=True))


ROWS = [
    Row("ChronoEditPipeline", "ChronoEdit", _chronoedit, "nvidia/ChronoEdit-14B-Diffusers", "video", main=True,
        loose=True, arguments={**_GIVEN, "image": pil(16)}),
    Row("LucyEditPipeline", "Lucy Edit", _lucy, "decart-ai/Lucy-Edit-Dev", "video", main=True, loose=True,
        per_sample=("video",), arguments={**_GIVEN, "video": [[pil(16)] * 5]}),
    Row("AnyFlowPipeline", "AnyFlow", _anyflow,
        "nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers", "video", main=True, loose=True, arguments=_GIVEN),
    Row("MotifVideoPipeline", "MotifVideo", _motif, "Motif-Technologies/Motif-Video-2B", "video", main=True, loose=True,
        arguments={"height": 32, "width": 32, "num_frames": 5}),
    Row("MotifVideoImage2VideoPipeline", "MotifVideo", lambda: _motif("MotifVideoImage2VideoPipeline"),
        "Motif-Technologies/Motif-Video-2B", "video", loose=True, per_sample=("image",),
        arguments={"height": 32, "width": 32, "num_frames": 5, "image": [pil(32)]}),
]  # fmt: skip
