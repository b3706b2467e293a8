"""Feynman-Kac correctors: annealing, guidance, products and tilts of diffusion models, sampled with exact weights.

A target is data (`targets`), a proposal moves particles (`proposals`), an increment weighs the move (`increments`), and
the engine of `fklit.feynman_kac` carries the weights and resamples (`simulate`). Skreta et al. 2025, arXiv 2503.02819.
"""

from fklit.correctors.discrete.masked import MaskedCorrector, MaskedExpert, MaskedPath
from fklit.correctors.guidance.api import correct
from fklit.correctors.guidance.prompt_divergence import PromptDivergence, prompt_divergence
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.run import GuidanceRun, WeightDegeneracyWarning
from fklit.correctors.guidance.settings import GuidanceSettings
from fklit.correctors.simulation.control import Control, FittedControl, GaussianControl
from fklit.correctors.simulation.corrector import Corrector
from fklit.correctors.simulation.diagnostics import ItoCheck, ZetaCheck, ito_against_exact, zeta_independence
from fklit.correctors.simulation.increments import (
    ExactRatio,
    IncompatibleError,
    Increment,
    KernelWeight,
    Rate,
    Uncorrected,
)
from fklit.correctors.simulation.proposals import EulerMaruyama, Heun, Proposal, ProposalError, ReverseKernel
from fklit.correctors.simulation.simulate import SimulationResult, simulate
from fklit.correctors.simulation.start import Start, check_proper
from fklit.correctors.targets.compositions import (
    Annealed,
    Composed,
    GeometricAverage,
    Guided,
    GuidedProduct,
    Product,
    Tilted,
)
from fklit.correctors.targets.conversions import Prediction, from_score, to_denoised, to_score
from fklit.correctors.targets.expert import Expert, ModelExpert, ScoreModel
from fklit.correctors.targets.exponents import Exponent, LateRamp, Ramp
from fklit.correctors.targets.path import (
    EDM,
    Interval,
    LinearFlow,
    LinearSigma,
    NoisePath,
    VarianceExploding,
    VariancePreserving,
    forward_kernel,
)
from fklit.correctors.targets.target import (
    DifferentPathsError,
    Evaluation,
    ImproperTargetError,
    NonFiniteScoreError,
    Target,
)
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt
from fklit.correctors.targets.trained import TrainedExpert

__all__ = [
    "EDM",
    "Annealed",
    "BlackBoxTilt",
    "Composed",
    "ComposedPrompt",
    "Control",
    "Corrector",
    "DifferentPathsError",
    "EulerMaruyama",
    "Evaluation",
    "ExactRatio",
    "Expert",
    "Exponent",
    "FittedControl",
    "GaussianControl",
    "GeometricAverage",
    "GuidanceResult",
    "GuidanceRun",
    "GuidanceSettings",
    "Guided",
    "GuidedProduct",
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
    "SimulationResult",
    "Start",
    "Target",
    "Tilt",
    "Tilted",
    "TrainedExpert",
    "Uncorrected",
    "VarianceExploding",
    "VariancePreserving",
    "WeightDegeneracyWarning",
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
