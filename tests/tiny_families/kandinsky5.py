"""Kandinsky 5: samples with their channels last, stepped in place."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import TOKENS, encoding
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "guidance_scale": 3.0}
_PLACE = "kandinskylab/Kandinsky-5.0-"


def _kandinsky(name: str, image: bool, cond: bool) -> Any:
    transformer = component(
        "Kandinsky5Transformer3DModel", in_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, out_visual_dim=4,
        patch_size=(1, 2, 2), model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(1, 1, 2),
        visual_cond=cond,
    )  # fmt: skip
    video = component(
        "AutoencoderKLHunyuanVideo", in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )  # fmt: skip
    four = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    picture = component("AutoencoderKL", block_out_channels=(4, 4, 4, 4), **four)
    pipeline = assemble(name, transformer=transformer, vae=picture if image else video, scheduler=euler(shift=5.0))

    def encode_prompt(
        prompt: Any, num_videos_per_prompt: int = 1, num_images_per_prompt: int = 1, **ignored: Any
    ) -> Any:
        repeats = num_videos_per_prompt * num_images_per_prompt
        found = encoding(prompt, TOKENS, 16, repeats=repeats)
        lengths = torch.arange(len(found) + 1, dtype=torch.int32) * TOKENS
        return found, encoding(prompt, 8, repeats=repeats), lengths

    pipeline.encode_prompt = encode_prompt
    pipeline.resolutions = [(32, 32)]  # its own are of a million pixels
    return pipeline


ROWS = [
    Row("Kandinsky5T2VPipeline", "Kandinsky 5", lambda: _kandinsky("Kandinsky5T2VPipeline", False, True),
        _PLACE + "T2V-Lite-sft-5s-Diffusers", "video", main=True, loose=True, arguments={**_GIVEN, "num_frames": 5}),
    Row("Kandinsky5T2IPipeline", "Kandinsky 5", lambda: _kandinsky("Kandinsky5T2IPipeline", True, False),
        _PLACE + "T2I-Lite-sft-Diffusers", loose=True, arguments=_GIVEN),
]  # fmt: skip
