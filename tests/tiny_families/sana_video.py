"""Sana-Video."""

from typing import Any

from tiny_families.components import assemble, component, euler, pil
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "frames": 5, "guidance_scale": 3.0, "use_resolution_binning": False}
_HUB = "Efficient-Large-Model/SANA-Video_2B_480p_diffusers"


def _sana_video(name: str) -> Any:
    transformer = component(
        "SanaVideoTransformer3DModel", in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=12,
        num_layers=2, num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
        caption_channels=8, mlp_ratio=2.5, sample_size=8, patch_size=(1, 2, 2), rope_max_seq_len=32,
    )  # fmt: skip
    vae = component("AutoencoderKLWan")
    pipeline = assemble(name, transformer=transformer, vae=vae, scheduler=euler(shift=3.0))
    return encode_by(pipeline, embeds(8), mask(), embeds(8, negative=True), mask(negative=True))


ROWS = [
    Row("SanaVideoPipeline", "Sana-Video", lambda: _sana_video("SanaVideoPipeline"), _HUB, "video", main=True,
        loose=True, arguments=_GIVEN),
    Row("SanaImageToVideoPipeline", "Sana-Video", lambda: _sana_video("SanaImageToVideoPipeline"), _HUB, "video",
        loose=True, arguments={**_GIVEN, "image": pil(32)}),
]  # fmt: skip
