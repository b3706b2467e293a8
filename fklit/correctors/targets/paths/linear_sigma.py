"""The path of the two-dimensional examples of arXiv 2503.02819."""

from dataclasses import dataclass

from fklit.correctors.targets.paths.noise_path import NoisePath, check_order


@dataclass(frozen=True)
class LinearSigma(NoisePath):
    """`log a` of `VariancePreserving` with `s(t) = t`: the path of the 2-D toys of arXiv 2503.02819."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_scale(self, t: float) -> float:
        """Return minus half the integral of a linear beta up to `t`."""
        return -0.5 * (t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min))

    def sigma(self, t: float) -> float:
        """Return `t`."""
        return t

    def drift(self, t: float) -> float:
        """Return `-beta(t) / 2`."""
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def diffusion(self, t: float) -> float:
        """Return `2 t + t^2 beta(t)`."""
        return 2 * t - 2 * t * t * self.drift(t)
