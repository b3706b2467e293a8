"""Laws with exact scores and densities, for tests, documentation and notebooks."""

from fklit.analytic.gaussian import GaussianMixture, NoisedMixture
from fklit.analytic.mixture_pipeline import MixturePipeline
from fklit.analytic.mixtures import forty_gaussians, power

__all__ = ["GaussianMixture", "MixturePipeline", "NoisedMixture", "forty_gaussians", "power"]
