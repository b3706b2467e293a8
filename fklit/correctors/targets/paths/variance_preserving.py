"""The variance-preserving path of DDPM and of Song et al. 2021."""

import math
from dataclasses import dataclass

from fklit.correctors.targets.paths.noise_path import NoisePath, check_order


@dataclass(frozen=True)
class VariancePreserving(NoisePath):
    """`a^2 + s^2 = 1` with `g^2 = beta(t)`, linear from `beta_min` to `beta_max` (Song et al. 2021, 2011.13456)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_scale(self, t: float) -> float:
        """Return minus half the integral of beta up to `t`."""
        return -0.5 * self._integral(t)

    def sigma(self, t: float) -> float:
        """Return `sqrt(1 - a^2)`."""
        return math.sqrt(-math.expm1(-self._integral(t)))

    def drift(self, t: float) -> float:
        """Return `-beta(t) / 2`."""
        return -0.5 * self.diffusion(t)

    def diffusion(self, t: float) -> float:
        """Return `beta(t)`."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def noise(self, t: float, s: float) -> float:
        """Return the integral of beta."""
        return self._integral(t) - self._integral(s)

    def _integral(self, t: float) -> float:
        return t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)
