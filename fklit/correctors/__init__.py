"""Feynman-Kac correctors: annealing, guidance, products and tilts of diffusion models, sampled with exact weights.

A target is data (`targets`), a proposal moves particles and an increment weighs the move (`simulation`), and the
engine of `fklit.feynman_kac` carries the weights and resamples. `guidance` does it for diffusers pipelines, `discrete`
for tokens and finite states. Skreta et al. 2025, arXiv 2503.02819.
"""

from typing import TYPE_CHECKING, NoReturn

from fklit.correctors.discrete import JointExpert, MaskedCorrector, MaskedExpert, MaskedPath, simulate_masked
from fklit.correctors.guidance.api import correct
from fklit.correctors.guidance.prompt_divergence import PromptDivergence, prompt_divergence
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.run import GuidanceRun, WeightDegeneracyWarning
from fklit.correctors.guidance.settings import GuidanceSettings
from fklit.correctors.guidance.two_models import TwoModelRun
from fklit.correctors.simulation import (
    Comparison,
    Control,
    Corrector,
    EulerMaruyama,
    ExactRatio,
    FittedControl,
    GaussianControl,
    Heun,
    ImproperTargetError,
    ImproperTargetWarning,
    IncompatibleError,
    Increment,
    InitialGaussian,
    ItoCheck,
    KernelWeight,
    Polish,
    Proposal,
    ProposalError,
    Rate,
    ReferenceCheck,
    ReverseKernel,
    SimulationResult,
    StepBias,
    StiffTiltError,
    Uncorrected,
    ZetaCheck,
    check_proper,
    ito_against_exact,
    reference_check,
    simulate,
    step_bias,
    zeta_independence,
)
from fklit.correctors.targets import (
    EDM,
    BlackBoxTilt,
    Denoiser,
    DenoiserMLP,
    DifferentPathsError,
    Evaluation,
    Expert,
    Exponent,
    Interval,
    LinearFlow,
    LinearSigma,
    ModelExpert,
    NoisePath,
    NonFiniteScoreError,
    Prediction,
    Ramp,
    SchedulerPath,
    ScoreModel,
    Target,
    Tilt,
    TrainedExpert,
    VarianceExploding,
    VariancePreserving,
    to_denoised,
    to_score,
)

__all__ = [
    "EDM",
    "BlackBoxTilt",
    "Comparison",
    "ComposedPrompt",
    "Control",
    "Corrector",
    "Denoiser",
    "DenoiserMLP",
    "DifferentPathsError",
    "EulerMaruyama",
    "Evaluation",
    "ExactRatio",
    "Expert",
    "Exponent",
    "FittedControl",
    "GaussianControl",
    "GuidanceResult",
    "GuidanceRun",
    "GuidanceSettings",
    "Heun",
    "ImproperTargetError",
    "ImproperTargetWarning",
    "IncompatibleError",
    "Increment",
    "InitialGaussian",
    "Interval",
    "ItoCheck",
    "JointExpert",
    "KernelWeight",
    "LinearFlow",
    "LinearSigma",
    "MaskedCorrector",
    "MaskedExpert",
    "MaskedPath",
    "ModelExpert",
    "NoisePath",
    "NonFiniteScoreError",
    "Polish",
    "Prediction",
    "PromptDivergence",
    "Proposal",
    "ProposalError",
    "Ramp",
    "Rate",
    "ReferenceCheck",
    "ReverseKernel",
    "SchedulerPath",
    "ScoreModel",
    "SimulationResult",
    "StepBias",
    "StiffTiltError",
    "Target",
    "Tilt",
    "TrainedExpert",
    "TwoModelRun",
    "Uncorrected",
    "VarianceExploding",
    "VariancePreserving",
    "WeightDegeneracyWarning",
    "ZetaCheck",
    "check_proper",
    "correct",
    "ito_against_exact",
    "prompt_divergence",
    "reference_check",
    "simulate",
    "simulate_masked",
    "step_bias",
    "to_denoised",
    "to_score",
    "zeta_independence",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)
