"""Rewards: what to steer towards. Every one takes `(samples, prompts, metadata)` and returns one number a sample.

Importing this package imports torch, and no model library: weights are built when a reward is first used.
"""

from typing import TYPE_CHECKING, NoReturn

from fklit.rewards.aesthetic import AestheticScore
from fklit.rewards.base import Reward, RewardError
from fklit.rewards.chat import ChatReward
from fklit.rewards.classifier import ImageClassifier
from fklit.rewards.clip import CLIPScore
from fklit.rewards.compose import Clipped, Min, Standardized, WeightedSum
from fklit.rewards.compressibility import JPEGCompressibility, JPEGIncompressibility
from fklit.rewards.consistency import InconsistentRewardWarning
from fklit.rewards.frames import Frames
from fklit.rewards.function import Function
from fklit.rewards.grammar import GrammarScore
from fklit.rewards.grammar_tagger import GrammarTagger
from fklit.rewards.hps import HPSv2
from fklit.rewards.http_client import RewardServiceWarning
from fklit.rewards.http_score import HTTPReward
from fklit.rewards.image_reward import ImageReward
from fklit.rewards.language_model_likelihood import LanguageModelLikelihood
from fklit.rewards.latent_image_reward import LatentImageReward
from fklit.rewards.latent_reward import LatentReward
from fklit.rewards.molecules import QED, LogP, MoleculeReward, Similarity, SyntheticAccessibility
from fklit.rewards.pick_score import PickScore
from fklit.rewards.product import Product
from fklit.rewards.profanity import ProfanityScore
from fklit.rewards.regex import RegexScore
from fklit.rewards.safety import SafetyPenalty
from fklit.rewards.server import RewardServer
from fklit.rewards.soft_tifa import SoftTIFA
from fklit.rewards.text_classifier import TextClassifier
from fklit.rewards.text_reward import TextReward
from fklit.rewards.unknown_words import UnknownWordsWarning
from fklit.rewards.vqa_score import VQAScore
from fklit.rewards.word_sentiment import AFINNSentiment, VADERSentiment

__all__ = [
    "QED",
    "AFINNSentiment",
    "AestheticScore",
    "CLIPScore",
    "ChatReward",
    "Clipped",
    "Frames",
    "Function",
    "GrammarScore",
    "GrammarTagger",
    "HPSv2",
    "HTTPReward",
    "ImageClassifier",
    "ImageReward",
    "InconsistentRewardWarning",
    "JPEGCompressibility",
    "JPEGIncompressibility",
    "LanguageModelLikelihood",
    "LatentImageReward",
    "LatentReward",
    "LogP",
    "Min",
    "MoleculeReward",
    "PickScore",
    "Product",
    "ProfanityScore",
    "RegexScore",
    "Reward",
    "RewardError",
    "RewardServer",
    "RewardServiceWarning",
    "SafetyPenalty",
    "Similarity",
    "SoftTIFA",
    "Standardized",
    "SyntheticAccessibility",
    "TextClassifier",
    "TextReward",
    "UnknownWordsWarning",
    "VADERSentiment",
    "VQAScore",
    "WeightedSum",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)
