"""Weighted simulation of a target: proposals, increments, drift controls, diagnostics."""

from fklit.correctors.simulation.api import simulate
from fklit.correctors.simulation.comparison import Comparison
from fklit.correctors.simulation.control import Control, FittedControl, GaussianControl
from fklit.correctors.simulation.corrector import Corrector
from fklit.correctors.simulation.diagnostics import ItoCheck, ZetaCheck, ito_against_exact, zeta_independence
from fklit.correctors.simulation.euler_maruyama import EulerMaruyama
from fklit.correctors.simulation.exact_ratio import ExactRatio
from fklit.correctors.simulation.heun import Heun
from fklit.correctors.simulation.increment import IncompatibleError, Increment, Uncorrected
from fklit.correctors.simulation.initial import InitialGaussian
from fklit.correctors.simulation.kernel_weight import KernelWeight
from fklit.correctors.simulation.polish import Polish
from fklit.correctors.simulation.proper import ImproperTargetError, ImproperTargetWarning, check_proper
from fklit.correctors.simulation.proposal import Move, Proposal, ProposalError
from fklit.correctors.simulation.rate import Rate
from fklit.correctors.simulation.reference_check import ReferenceCheck, reference_check
from fklit.correctors.simulation.result import SimulationResult
from fklit.correctors.simulation.reverse_kernel import ReverseKernel
from fklit.correctors.simulation.split_noise import SplitNoise
from fklit.correctors.simulation.step_bias import StepBias, step_bias
from fklit.correctors.simulation.tilt_step import StiffTiltError

__all__ = [
    "Comparison",
    "Control",
    "Corrector",
    "EulerMaruyama",
    "ExactRatio",
    "FittedControl",
    "GaussianControl",
    "Heun",
    "ImproperTargetError",
    "ImproperTargetWarning",
    "IncompatibleError",
    "Increment",
    "InitialGaussian",
    "ItoCheck",
    "KernelWeight",
    "Move",
    "Polish",
    "Proposal",
    "ProposalError",
    "Rate",
    "ReferenceCheck",
    "ReverseKernel",
    "SimulationResult",
    "SplitNoise",
    "StepBias",
    "StiffTiltError",
    "Uncorrected",
    "ZetaCheck",
    "check_proper",
    "ito_against_exact",
    "reference_check",
    "simulate",
    "step_bias",
    "zeta_independence",
]
