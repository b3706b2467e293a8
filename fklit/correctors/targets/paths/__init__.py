"""Noise paths: how data become noise, one file a path."""

from fklit.correctors.targets.paths.edm import EDM
from fklit.correctors.targets.paths.linear_flow import LinearFlow
from fklit.correctors.targets.paths.linear_sigma import LinearSigma
from fklit.correctors.targets.paths.noise_path import Interval, NoisePath, check_grid
from fklit.correctors.targets.paths.scheduler_path import SchedulerPath
from fklit.correctors.targets.paths.variance_exploding import VarianceExploding
from fklit.correctors.targets.paths.variance_preserving import VariancePreserving

__all__ = [
    "EDM",
    "Interval",
    "LinearFlow",
    "LinearSigma",
    "NoisePath",
    "SchedulerPath",
    "VarianceExploding",
    "VariancePreserving",
    "check_grid",
]
