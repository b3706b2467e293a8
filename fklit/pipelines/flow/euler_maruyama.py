"""Euler-Maruyama steps of the SDE `dx = [v + g^2 / (2 sigma) e] dsigma + g dW`, as RL on flow models takes them.

For every g the SDE has the marginals of the flow; a step of finite size has not.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

from fklit.pipelines.flow.kernel import FlowCoefficients, FlowKernel


@dataclass(frozen=True)
class EulerMaruyama(FlowKernel):
    """A kernel that freezes velocity and score over a step."""

    @abstractmethod
    def diffusion(self, sigma: float, next_sigma: float) -> float:
        """Return the g^2 of a step, at least 0."""

    def between(self, sigma: float, next_sigma: float, previous_sigma: float | None) -> FlowCoefficients:
        """Return `x' = x - d v - d g^2 / (2 sigma) e + g sqrt(d) z`, with `d = sigma - next_sigma`."""
        step, squared = sigma - next_sigma, self.diffusion(sigma, next_sigma)
        # v = (x - x0) / sigma and e = (x - (1 - sigma) x0) / sigma, so both are linear in x and x0.
        pull = step * squared / (2 * sigma**2)
        return FlowCoefficients(
            sample=next_sigma / sigma - pull,
            denoised=step / sigma + pull * (1 - sigma),
            std=math.sqrt(squared * step),
        )


@dataclass(frozen=True)
class FlowGRPO(EulerMaruyama):
    """The kernel `sde` of Flow-GRPO (Liu et al. 2025, arXiv 2505.05470, equation 9): `g = a sqrt(sigma / (1 - sigma))`.

    At sigma = 1, where g is infinite, the next level stands in the denominator, as in the authors' code; the error of
    that first step never vanishes.

    Attributes:
        noise_level: a, at least 0; 0.7 in the paper.
    """

    noise_level: float = 0.7

    def diffusion(self, sigma: float, next_sigma: float) -> float:
        """Return `a^2 sigma / (1 - sigma)`."""
        # Solvers of flows start at 1 - 1e-6, which is pure noise as well.
        return self.noise_level**2 * sigma / (1 - (next_sigma if sigma > 1 - 1e-4 else sigma))


@dataclass(frozen=True)
class DanceGRPO(EulerMaruyama):
    """The kernel `dance` of DanceGRPO (Xue et al. 2025, arXiv 2505.07818): constant g.

    Attributes:
        noise_level: g, at least 0; 0.3 in the paper.
    """

    noise_level: float = 0.3

    def diffusion(self, sigma: float, next_sigma: float) -> float:
        """Return g squared."""
        return self.noise_level**2
