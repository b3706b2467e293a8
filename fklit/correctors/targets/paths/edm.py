"""The path of EDM (Karras et al. 2022)."""

from dataclasses import dataclass

from fklit.correctors.targets.paths.noise_path import check_order
from fklit.correctors.targets.paths.variance_exploding import ExplodingPath


@dataclass(frozen=True)
class EDM(ExplodingPath):
    """`x_t = x_0 + s(t) e` with `s^(1/rho)` linear in t (Karras et al. 2022, arXiv 2206.00364, equation 5)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)
        if not self.rho > 0:
            raise ValueError(f"expected a positive number, got rho={self.rho}; the paper has 7.")

    def sigma(self, t: float) -> float:
        """Return the level at `t`."""
        return float(self._root(t) ** self.rho)

    def diffusion(self, t: float) -> float:
        """Return `d s^2 / dt`."""
        slope = self.sigma_max ** (1 / self.rho) - self.sigma_min ** (1 / self.rho)
        return float(2 * self.rho * slope * self._root(t) ** (2 * self.rho - 1))

    def _root(self, t: float) -> float:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return float(low + t * (high - low))
