"""Wan 2.1 and 2.2, and its relatives for pictures, control and characters."""

from typing import Any

import tiny_flow

from tiny_families.components import component, pil, recast
from tiny_families.encodings import embeds, encode_by
from tiny_families.row import Row

_SIZE = {"height": 16, "width": 16}
_GIVEN = {**_SIZE, "num_frames": 5, "guidance_scale": 3.0}
_HUB = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
_SHAPE = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": 32, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip


def wan(name: str = "WanPipeline", **parts: Any) -> Any:
    """A pipeline with the networks of Wan 2.1, and text encodings 32 wide."""
    return encode_by(recast(name, tiny_flow.wan(), **parts), embeds(32), embeds(32, negative=True))


def _image_to_video() -> Any:
    # Beside the sample lie four channels of masks and the encoded picture.
    transformer = component("WanTransformer3DModel", **{**_SHAPE, "in_channels": 36})
    return wan("WanImageToVideoPipeline", transformer=transformer, image_encoder=None, image_processor=None)


def _vace() -> Any:
    transformer = component("WanVACETransformer3DModel", **_SHAPE, vace_layers=[0], vace_in_channels=96)
    return wan("WanVACEPipeline", transformer=transformer)


ROWS = [
    Row("WanPipeline", "Wan", wan, _HUB, "video", main=True, loose=True, arguments=_GIVEN),
    Row("WanImageToVideoPipeline", "Wan", _image_to_video, "Wan-AI/Wan2.2-I2V-A14B-Diffusers", "video", loose=True,
        arguments={**_GIVEN, "image": pil(16)}),
    Row("WanVideoToVideoPipeline", "Wan", lambda: wan("WanVideoToVideoPipeline"), _HUB, "video", loose=True,
        arguments={**_SIZE, "guidance_scale": 3.0, "video": [pil(16)] * 5, "strength": 0.8}),
    Row("WanVACEPipeline", "Wan", _vace, "Wan-AI/Wan2.1-VACE-1.3B-diffusers", "video", loose=True, arguments=_GIVEN),
]  # fmt: skip
