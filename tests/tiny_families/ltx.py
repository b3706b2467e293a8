"""LTX-Video: packed latents; further frames as conditions."""

from typing import Any

import tiny_flow

from tiny_families.components import euler, pil, recast
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "num_frames": 9, "guidance_scale": 3.0}
_HUB = "Lightricks/LTX-Video"


def _ltx(name: str, **parts: Any) -> Any:
    pipeline = recast(name, tiny_flow.ltx(), **parts)
    return encode_by(pipeline, embeds(32), mask(), embeds(32, negative=True), mask(negative=True))


ROWS = [
    Row("LTXPipeline", "LTX-Video", lambda: _ltx("LTXPipeline"), _HUB, "video", main=True, loose=True,
        arguments=_GIVEN),
    Row("LTXImageToVideoPipeline", "LTX-Video", lambda: _ltx("LTXImageToVideoPipeline"), _HUB, "video", loose=True,
        per_sample=("image",), arguments={**_GIVEN, "image": [pil(32)]}),
    Row("LTXConditionPipeline", "LTX-Video", lambda: _ltx("LTXConditionPipeline", scheduler=euler()),
        "Lightricks/LTX-Video-0.9.5", "video", loose=True, arguments={**_GIVEN, "image": pil(32)}),
    Row("LTXI2VLongMultiPromptPipeline", "LTX-Video",
        lambda: _ltx("LTXI2VLongMultiPromptPipeline", scheduler=euler()), _HUB, "video", loose=True, arguments=_GIVEN),
]  # fmt: skip
