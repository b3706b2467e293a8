"""Metrics: how good a run was, measured by other means than its reward."""

from typing import TYPE_CHECKING, NoReturn

from fklit.metrics.alignment import Alignment
from fklit.metrics.clip_score import MeanCLIPScore
from fklit.metrics.compositional import Compositional
from fklit.metrics.detector import CenterDetector, Judge
from fklit.metrics.diversity import CLIPDiversity, pairwise_distance
from fklit.metrics.geneval import TAGS, FoundObject, Tag, Verdict, judge_objects, relations
from fklit.metrics.prompt_mean import PromptMean
from fklit.metrics.samples import ChosenSamples, SampleBatch

__all__ = [
    "TAGS",
    "Alignment",
    "CLIPDiversity",
    "CenterDetector",
    "ChosenSamples",
    "Compositional",
    "FoundObject",
    "Judge",
    "MeanCLIPScore",
    "PromptMean",
    "SampleBatch",
    "Tag",
    "Verdict",
    "judge_objects",
    "pairwise_distance",
    "relations",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)
