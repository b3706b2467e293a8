"""PixArt-alpha and PixArt-sigma."""

from typing import Any

import tiny_pipelines

from tiny_families.components import recast
from tiny_families.row import Row

_GIVEN = {"height": 16, "width": 16, "guidance_scale": 3.0, "use_resolution_binning": False}


def _sigma(name: str, **parts: Any) -> Any:
    return recast(name, tiny_pipelines.tiny_pixart(), **parts)


ROWS = [
    Row("PixArtAlphaPipeline", "PixArt", tiny_pipelines.tiny_pixart, "PixArt-alpha/PixArt-XL-2-1024-MS", main=True,
        arguments=_GIVEN),
    Row("PixArtSigmaPipeline", "PixArt", lambda: _sigma("PixArtSigmaPipeline"),
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", arguments=_GIVEN),
    Row("PixArtSigmaPAGPipeline", "PAG",
        lambda: _sigma("PixArtSigmaPAGPipeline", pag_applied_layers=["blocks.0"]),
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", arguments={**_GIVEN, "pag_scale": 2.0}),
]  # fmt: skip
