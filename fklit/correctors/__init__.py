"""Feynman-Kac correctors: annealing, guidance, products and tilts of diffusion models, sampled with exact weights.

A target is data (`targets`), a proposal moves particles (`proposals`), an increment weighs the move (`increments`), and
the engine of `fklit.feynman_kac` carries the weights and resamples (`simulate`). Skreta et al. 2025, arXiv 2503.02819.
"""

from fklit.correctors.api import correct
from fklit.correctors.checks import ItoCheck, ZetaCheck, ito_against_exact, zeta_independence
from fklit.correctors.control import Control, FittedControl, GaussianControl
from fklit.correctors.conversions import Prediction, from_score, to_denoised, to_score
from fklit.correctors.corrector import Corrector
from fklit.correctors.expert import Expert, ModelExpert, ScoreModel
from fklit.correctors.exponents import Exponent, LateRamp, Ramp
from fklit.correctors.guidance import GuidanceRun, SwarmCollapseWarning
from fklit.correctors.guided_result import GuidedResult
from fklit.correctors.increments import ExactRatio, IncompatibleError, Increment, KernelWeight, Rate, Uncorrected
from fklit.correctors.masked import MaskedCorrector, MaskedExpert, MaskedPath
from fklit.correctors.path import (
    EDM,
    Interval,
    LinearFlow,
    LinearSigma,
    NoisePath,
    VarianceExploding,
    VariancePreserving,
    forward_kernel,
)
from fklit.correctors.prompt_divergence import PromptDivergence, prompt_divergence
from fklit.correctors.prompts import ComposedPrompt
from fklit.correctors.proposals import EulerMaruyama, Heun, Proposal, ProposalError, ReverseKernel
from fklit.correctors.simulate import CorrectorRun, simulate
from fklit.correctors.start import Start, check_proper
from fklit.correctors.target import (
    DifferentPathsError,
    Evaluation,
    ImproperTargetError,
    NonFiniteScoreError,
    Target,
)
from fklit.correctors.targets import (
    Annealed,
    Composed,
    GeometricAverage,
    Guided,
    GuidedProduct,
    Product,
    Tilted,
)
from fklit.correctors.tilt import BlackBoxTilt, Tilt
from fklit.correctors.trained import TrainedExpert

__all__ = [
    "EDM",
    "Annealed",
    "BlackBoxTilt",
    "Composed",
    "ComposedPrompt",
    "Control",
    "Corrector",
    "CorrectorRun",
    "DifferentPathsError",
    "EulerMaruyama",
    "Evaluation",
    "ExactRatio",
    "Expert",
    "Exponent",
    "FittedControl",
    "GaussianControl",
    "GeometricAverage",
    "GuidanceRun",
    "Guided",
    "GuidedProduct",
    "GuidedResult",
    "Heun",
    "ImproperTargetError",
    "IncompatibleError",
    "Increment",
    "Interval",
    "ItoCheck",
    "KernelWeight",
    "LateRamp",
    "LinearFlow",
    "LinearSigma",
    "MaskedCorrector",
    "MaskedExpert",
    "MaskedPath",
    "ModelExpert",
    "NoisePath",
    "NonFiniteScoreError",
    "Prediction",
    "Product",
    "PromptDivergence",
    "Proposal",
    "ProposalError",
    "Ramp",
    "Rate",
    "ReverseKernel",
    "ScoreModel",
    "Start",
    "SwarmCollapseWarning",
    "Target",
    "Tilt",
    "Tilted",
    "TrainedExpert",
    "Uncorrected",
    "VarianceExploding",
    "VariancePreserving",
    "ZetaCheck",
    "check_proper",
    "correct",
    "forward_kernel",
    "from_score",
    "ito_against_exact",
    "prompt_divergence",
    "simulate",
    "to_denoised",
    "to_score",
    "zeta_independence",
]
