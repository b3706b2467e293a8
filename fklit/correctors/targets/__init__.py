"""Targets as data: experts on a noise path, with exponents and a tilt."""

from fklit.correctors.targets.conversions import Prediction, to_denoised, to_score
from fklit.correctors.targets.denoiser import DenoiserMLP
from fklit.correctors.targets.denoiser_base import Denoiser
from fklit.correctors.targets.evaluation import Evaluation, NonFiniteScoreError
from fklit.correctors.targets.expert import Expert
from fklit.correctors.targets.exponents import Exponent, Ramp
from fklit.correctors.targets.paths import (
    EDM,
    Interval,
    LinearFlow,
    LinearSigma,
    NoisePath,
    SchedulerPath,
    VarianceExploding,
    VariancePreserving,
)
from fklit.correctors.targets.score_model import ModelExpert, ScoreModel
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.terms import DifferentPathsError
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt
from fklit.correctors.targets.trained import TrainedExpert

__all__ = [
    "EDM",
    "BlackBoxTilt",
    "Denoiser",
    "DenoiserMLP",
    "DifferentPathsError",
    "Evaluation",
    "Expert",
    "Exponent",
    "Interval",
    "LinearFlow",
    "LinearSigma",
    "ModelExpert",
    "NoisePath",
    "NonFiniteScoreError",
    "Prediction",
    "Ramp",
    "SchedulerPath",
    "ScoreModel",
    "Target",
    "Tilt",
    "TrainedExpert",
    "VarianceExploding",
    "VariancePreserving",
    "to_denoised",
    "to_score",
]
