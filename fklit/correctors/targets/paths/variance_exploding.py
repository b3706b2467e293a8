"""The variance-exploding path of Song et al. 2021, and what all paths without scaling share."""

import math
from dataclasses import dataclass

from fklit.correctors.targets.paths.noise_path import NoisePath, check_order


class ExplodingPath(NoisePath):
    """A path with `a = 1`, which its sigma determines."""

    def log_scale(self, t: float) -> float:
        """Return 0."""
        return 0.0

    def drift(self, t: float) -> float:
        """Return 0."""
        return 0.0

    def noise(self, t: float, s: float) -> float:
        """Return the difference of the squares of sigma."""
        return self.sigma(t) ** 2 - self.sigma(s) ** 2


@dataclass(frozen=True)
class VarianceExploding(ExplodingPath):
    """`x_t = x_0 + s(t) e` with `s` geometric in t, from `sigma_min` to `sigma_max`."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def sigma(self, t: float) -> float:
        """Return `sigma_min^(1 - t) sigma_max^t`."""
        return math.exp((1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def diffusion(self, t: float) -> float:
        """Return `2 s^2 log(sigma_max / sigma_min)`."""
        return 2 * self.sigma(t) ** 2 * math.log(self.sigma_max / self.sigma_min)
