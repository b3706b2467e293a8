"""Families of flow matching whose builders `tiny_flow` has."""

import tiny_flow

from tiny_families.components import picture, recast
from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}
_GUIDED = {"guidance_scale": 3.0}

ROWS = [
    Row("ChromaPipeline", "Chroma", tiny_flow.chroma, "lodestones/Chroma1-HD", main=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("ChromaImg2ImgPipeline", "Chroma", lambda: recast("ChromaImg2ImgPipeline", tiny_flow.chroma()),
        "lodestones/Chroma1-HD", arguments={**_SQUARE, "image": picture(), "strength": 0.8, **_GUIDED}),
    Row("AuraFlowPipeline", "AuraFlow", tiny_flow.aura_flow, "fal/AuraFlow-v0.3", main=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("Lumina2Pipeline", "Lumina 2", tiny_flow.lumina_2, "Alpha-VLLM/Lumina-Image-2.0", main=True, loose=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("CogView4Pipeline", "CogView4", tiny_flow.cogview_4, "THUDM/CogView4-6B", main=True,
        arguments={**_SQUARE, **_GUIDED}),
]  # fmt: skip
