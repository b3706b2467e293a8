"""AnimateDiff: motion modules in an image model."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import pil, recast
from tiny_families.row import Row

_HUB = "SG161222/Realistic_Vision_V5.1_noVAE"
_GIVEN = {"height": 16, "width": 16, "num_frames": 4, "guidance_scale": 3.0}


def _adapter(**options: Any) -> Any:
    from diffusers import MotionAdapter

    return MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2,
        **options,
    )  # fmt: skip


def _animatediff(name: str, **parts: Any) -> Any:
    return recast(
        name, tiny_pipelines.tiny_animatediff(), unet=tiny._unet(), motion_adapter=_adapter(), **parts,
    )  # fmt: skip


def _controlled() -> Any:
    return _animatediff("AnimateDiffControlNetPipeline", controlnet=tiny_pipelines._controlnet(tiny._unet()))


def _both_controlled() -> Any:
    net = tiny_pipelines._controlnet(tiny._unet())
    return _animatediff("AnimateDiffVideoToVideoControlNetPipeline", controlnet=net)


def _sdxl() -> Any:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    return recast("AnimateDiffSDXLPipeline", tiny.tiny_sdxl(), motion_adapter=_adapter(), scheduler=scheduler)


def _name(name: str) -> Any:
    return lambda: _animatediff(name)


ROWS = [
    Row("AnimateDiffPipeline", "AnimateDiff", _name("AnimateDiffPipeline"), _HUB, "video", main=True,
        arguments=_GIVEN),
    Row("AnimateDiffSDXLPipeline", "AnimateDiff", _sdxl, "stabilityai/stable-diffusion-xl-base-1.0", "video",
        arguments=_GIVEN),
    Row("AnimateDiffControlNetPipeline", "AnimateDiff", _controlled, _HUB, "video",
        arguments={**_GIVEN, "conditioning_frames": [pil(16)] * 4}),
    Row("AnimateDiffVideoToVideoPipeline", "AnimateDiff", _name("AnimateDiffVideoToVideoPipeline"), _HUB, "video",
        per_sample=("video",),
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0, "video": [[pil(16)] * 4], "strength": 0.8}),
    Row("AnimateDiffVideoToVideoControlNetPipeline", "AnimateDiff", _both_controlled, _HUB, "video",
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0, "video": [pil(16)] * 4, "strength": 0.8,
                   "conditioning_frames": [pil(16)] * 4}),
    Row("AnimateDiffPAGPipeline", "AnimateDiff",
        lambda: _animatediff("AnimateDiffPAGPipeline", pag_applied_layers=["mid"]), _HUB, "video",
        arguments={**_GIVEN, "pag_scale": 2.0}),
]  # fmt: skip
