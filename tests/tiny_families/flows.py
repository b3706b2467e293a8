"""Families of flow matching whose builders `tiny_flow` has: one class each."""

import tiny_flow

from tiny_families.row import Row

_SQUARE = {"height": 16, "width": 16}
_LARGER = {"height": 32, "width": 32}
_GUIDED = {"guidance_scale": 3.0}

ROWS = [
    Row("ChromaPipeline", "Chroma", tiny_flow.chroma, "lodestones/Chroma1-HD", main=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("AuraFlowPipeline", "AuraFlow", tiny_flow.aura_flow, "fal/AuraFlow-v0.3", main=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("Lumina2Pipeline", "Lumina 2", tiny_flow.lumina_2, "Alpha-VLLM/Lumina-Image-2.0", main=True, loose=True,
        arguments={**_SQUARE, **_GUIDED}),
    Row("CogView4Pipeline", "CogView4", tiny_flow.cogview_4, "THUDM/CogView4-6B", main=True,
        arguments={**_SQUARE, **_GUIDED}),
]  # fmt: skip
