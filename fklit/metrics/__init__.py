"""Metrics: how good a run was, measured by other means than its reward."""

from typing import TYPE_CHECKING, NoReturn

from fklit.metrics.acceptance_rate import AcceptanceRate
from fklit.metrics.alignment import Alignment
from fklit.metrics.chosen_samples import ChosenSamples
from fklit.metrics.clip_features import CLIPFeatures
from fklit.metrics.clip_score import MeanCLIPScore
from fklit.metrics.compositional import Compositional
from fklit.metrics.detector import CenterDetector, Judge
from fklit.metrics.distinct import Distinct, distinct_n
from fklit.metrics.diversity import CLIPDiversity, pairwise_distance
from fklit.metrics.feature_distance import FeatureDistance
from fklit.metrics.fid import CLIPFID
from fklit.metrics.geneval import TAGS, FoundObject, Tag, Verdict, judge_objects, relations
from fklit.metrics.kid import CLIPKID
from fklit.metrics.molecules import MoleculeObjectives, MoleculeQuality, internal_diversity
from fklit.metrics.paired_mean import Gain, PairedMean
from fklit.metrics.pareto import hypervolume
from fklit.metrics.prompt_mean import PromptMean
from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.prompt_table import PromptTable
from fklit.metrics.reward_metric import RewardMetric
from fklit.metrics.sample_metric import SampleMetric
from fklit.metrics.samples import SampleBatch
from fklit.metrics.self_bleu import SelfBLEU, self_bleu_score
from fklit.metrics.text_perplexity import TextPerplexity
from fklit.metrics.text_table import TextTable
from fklit.metrics.texts import text_batch
from fklit.metrics.unique_roots import UniqueRoots

__all__ = [
    "CLIPFID",
    "CLIPKID",
    "TAGS",
    "AcceptanceRate",
    "Alignment",
    "CLIPDiversity",
    "CLIPFeatures",
    "CenterDetector",
    "ChosenSamples",
    "Compositional",
    "Distinct",
    "FeatureDistance",
    "FoundObject",
    "Gain",
    "Judge",
    "MeanCLIPScore",
    "MoleculeObjectives",
    "MoleculeQuality",
    "PairedMean",
    "PromptMean",
    "PromptMetric",
    "PromptTable",
    "RewardMetric",
    "SampleBatch",
    "SampleMetric",
    "SelfBLEU",
    "Tag",
    "TextPerplexity",
    "TextTable",
    "UniqueRoots",
    "Verdict",
    "distinct_n",
    "hypervolume",
    "internal_diversity",
    "judge_objects",
    "pairwise_distance",
    "relations",
    "self_bleu_score",
    "text_batch",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)
