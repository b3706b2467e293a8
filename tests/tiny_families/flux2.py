"""FLUX.2 and its Klein models."""

from typing import Any

import tiny_flow

from tiny_families.components import picture, recast
from tiny_families.encodings import embeds, encode_by, ids
from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}


def _klein(name: str) -> Any:
    return encode_by(recast(name, tiny_flow.flux_2()), embeds(16), ids(4, shared=False))


ROWS = [
    Row("Flux2Pipeline", "FLUX.2", tiny_flow.flux_2, "black-forest-labs/FLUX.2-dev", main=True, arguments=_SQUARE),
    Row("Flux2KleinPipeline", "FLUX.2", lambda: _klein("Flux2KleinPipeline"), "black-forest-labs/FLUX.2-klein-4B",
        arguments={**_SQUARE, "guidance_scale": 3.0}),
    Row("Flux2KleinInpaintPipeline", "FLUX.2", lambda: _klein("Flux2KleinInpaintPipeline"),
        "black-forest-labs/FLUX.2-klein-4B",
        arguments={**_SQUARE, "image": picture(), "mask_image": (picture(seed=4)[:, :1] > 0.5).float(),
                   "guidance_scale": 3.0}),
]  # fmt: skip
