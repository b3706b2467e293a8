"""Correctors of discrete state spaces: masked diffusion and finite-state chains."""

from fklit.correctors.discrete.api import simulate_masked
from fklit.correctors.discrete.ctmc import exit_rates, exit_weight, log_target, reverse_rates
from fklit.correctors.discrete.masked import JointExpert, MaskedCorrector, MaskedExpert, MaskedPath
from fklit.correctors.discrete.masked_weights import masked_exit_weight, masked_weight

__all__ = [
    "JointExpert",
    "MaskedCorrector",
    "MaskedExpert",
    "MaskedPath",
    "exit_rates",
    "exit_weight",
    "log_target",
    "masked_exit_weight",
    "masked_weight",
    "reverse_rates",
    "simulate_masked",
]
