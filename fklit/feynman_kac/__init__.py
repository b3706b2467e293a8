"""The pure engine of Feynman-Kac methods: torch and the standard library only.

Axes: `B` groups (prompts), `K` particles of each. Log-weights are float64, shape (B, K), and groups never mix.
"""

from fklit.feynman_kac.budget import Budget, peak_memory_bytes
from fklit.feynman_kac.engine import FeynmanKacModel, StepRecord, iterate, run
from fklit.feynman_kac.genealogy import coalescence, lineages, roots, unique_roots
from fklit.feynman_kac.particle_gibbs import particle_gibbs
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import (
    Difference,
    HighVarianceWarning,
    Max,
    Potential,
    Sum,
    Terminal,
    get_potential,
)
from fklit.feynman_kac.randomness import Generators, group_generators, normals, uniforms
from fklit.feynman_kac.resampling import (
    Resampler,
    ancestors_from_counts,
    birth_death,
    get_resampler,
    keep_survivors_in_place,
    multinomial,
    residual,
    ssp,
    stratified,
    systematic,
)
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Adaptive, Constant, Geometric, Linear, Tempering
from fklit.feynman_kac.trees import join, select, tree_map
from fklit.feynman_kac.weights import (
    DegenerateGroupError,
    InvalidWeightError,
    ess,
    log_mean_exp,
    max_weight,
    normalize,
)

__all__ = [
    "Adaptive",
    "Budget",
    "Constant",
    "DegenerateGroupError",
    "Difference",
    "FeynmanKacModel",
    "Generators",
    "Geometric",
    "HighVarianceWarning",
    "InvalidWeightError",
    "Linear",
    "Max",
    "ParticleResult",
    "ParticleSystem",
    "Potential",
    "Resampler",
    "RewardPath",
    "Schedule",
    "StepRecord",
    "Sum",
    "Tempering",
    "Terminal",
    "ancestors_from_counts",
    "birth_death",
    "coalescence",
    "ess",
    "get_potential",
    "get_resampler",
    "group_generators",
    "iterate",
    "join",
    "keep_survivors_in_place",
    "lineages",
    "log_mean_exp",
    "max_weight",
    "multinomial",
    "normalize",
    "normals",
    "particle_gibbs",
    "peak_memory_bytes",
    "residual",
    "roots",
    "run",
    "select",
    "ssp",
    "stratified",
    "systematic",
    "tree_map",
    "uniforms",
    "unique_roots",
]
