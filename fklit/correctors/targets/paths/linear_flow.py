"""The straight path of flow matching."""

import math
from dataclasses import dataclass

from fklit.correctors.targets.paths.noise_path import NoisePath


@dataclass(frozen=True)
class LinearFlow(NoisePath):
    """`x_t = (1 - t) x_0 + t e`, the straight path of flow matching.

    At t = 1 there is no signal and the drift of the process has a pole, so that samplers start slightly below.
    """

    start: float = 0.995
    stop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.stop < self.start < 1:
            raise ValueError(
                f"expected 0 <= stop < start < 1, got start={self.start} and stop={self.stop}; the drift has a pole at "
                "1."
            )

    def log_scale(self, t: float) -> float:
        """Return `log(1 - t)`."""
        return math.log1p(-t)

    def sigma(self, t: float) -> float:
        """Return `t`."""
        return t

    def drift(self, t: float) -> float:
        """Return `-1 / (1 - t)`."""
        return -1 / (1 - t)

    def diffusion(self, t: float) -> float:
        """Return `2 t / (1 - t)`."""
        return 2 * t / (1 - t)

    def noise(self, t: float, s: float) -> float:
        """Return `2 (log(1 - s) - log(1 - t) - (t - s))`."""
        return 2 * (math.log1p(-s) - math.log1p(-t) - (t - s))
