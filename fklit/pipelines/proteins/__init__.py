"""Protein design pipelines of diffusers: two schedulers, one particle."""

from fklit.pipelines.proteins.adapter import ProteinPipeline
from fklit.pipelines.proteins.design import ProteinDesign, radius_of_gyration

__all__ = ["ProteinDesign", "ProteinPipeline", "radius_of_gyration"]
