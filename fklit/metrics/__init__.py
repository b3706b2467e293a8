"""Metrics: how good a run was, measured by other means than its reward."""

from fklit.metrics.alignment import Alignment
from fklit.metrics.clip_score import MeanCLIPScore
from fklit.metrics.compositional import Compositional
from fklit.metrics.detector import CenterDetector, Judge
from fklit.metrics.diversity import CLIPDiversity, pairwise_distance
from fklit.metrics.geneval import FoundObject, Verdict, judge_objects, relations
from fklit.metrics.prompt_mean import PromptMean

__all__ = [
    "Alignment",
    "CLIPDiversity",
    "CenterDetector",
    "Compositional",
    "FoundObject",
    "Judge",
    "MeanCLIPScore",
    "PromptMean",
    "Verdict",
    "judge_objects",
    "pairwise_distance",
    "relations",
]
