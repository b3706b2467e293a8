"""SkyReels V2: full sequences, and diffusion forcing, where frames have noise levels of their own."""

from typing import Any

import tiny_flow
import tiny_pipelines

from tiny_families.components import component, pil
from tiny_families.row import Row
from tiny_families.wan import wan

_GIVEN = {"height": 16, "width": 16, "num_frames": 9, "guidance_scale": 3.0}
_SHAPE = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
    "text_dim": 32, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip


def _skyreels(name: str, parts: dict[str, Any] | None = None, **options: Any) -> Any:
    transformer = component("SkyReelsV2Transformer3DModel", **{**_SHAPE, **options})
    return wan(name, transformer=transformer, scheduler=tiny_flow.wan().scheduler, **(parts or {}))


def _image_to_video() -> Any:
    from transformers import CLIPImageProcessor

    return _skyreels(
        "SkyReelsV2ImageToVideoPipeline", in_channels=36, image_dim=16,
        parts={"image_encoder": tiny_pipelines._image_encoder(),
               "image_processor": CLIPImageProcessor(size=16, crop_size=16)},
    )  # fmt: skip


def _forcing(name: str) -> Any:
    return lambda: _skyreels(name)


_T2V, _DF = "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers", "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers"
ROWS = [
    Row("SkyReelsV2Pipeline", "SkyReels V2", lambda: _skyreels("SkyReelsV2Pipeline"), _T2V, "video", main=True,
        loose=True, arguments=_GIVEN),
    Row("SkyReelsV2ImageToVideoPipeline", "SkyReels V2", _image_to_video,
        "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers", "video", loose=True, arguments={**_GIVEN, "image": pil(16)}),
    Row("SkyReelsV2DiffusionForcingPipeline", "SkyReels V2", _forcing("SkyReelsV2DiffusionForcingPipeline"), _DF,
        "video", loose=True, arguments={**_GIVEN, "fps": 24, "base_num_frames": 9}),
    Row("SkyReelsV2DiffusionForcingImageToVideoPipeline", "SkyReels V2",
        _forcing("SkyReelsV2DiffusionForcingImageToVideoPipeline"), _DF, "video", loose=True,
        arguments={**_GIVEN, "image": pil(16), "fps": 24, "base_num_frames": 9}),
]  # fmt: skip
