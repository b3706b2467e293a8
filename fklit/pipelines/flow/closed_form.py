"""Kernels that freeze the denoised prediction over a step and close the rest in closed form."""

import math
from dataclasses import dataclass

from fklit.pipelines.flow.kernel import FlowCoefficients, FlowKernel, log_snr


def renoised(sigma: float, next_sigma: float, kept: float) -> FlowCoefficients:
    """Return the step that keeps a share of the sample's noise and draws the rest anew.

    It is `x' = (1 - s') x0 + s' (kept e + sqrt(1 - kept^2) z)`, written by x and x0 since `e = (x - (1 - s) x0) / s`:
    the noise has the variance of the level s', whatever is kept.

    Args:
        sigma: s.
        next_sigma: s'.
        kept: in [0, 1].
    """
    factor = kept * next_sigma / sigma
    fresh = next_sigma * math.sqrt(max(1 - kept**2, 0.0))
    return FlowCoefficients(factor, (1 - next_sigma) - factor * (1 - sigma), fresh)


@dataclass(frozen=True)
class CoefficientPreserving(FlowKernel):
    """The kernel `cps` (Wang and Yu 2025, arXiv 2509.05952): every step keeps the same share of the noise.

    The share does not go to 1 as steps become small, so the sampled law does not converge to the model's: it is too
    narrow at any number of steps (W1 .065 for a Gaussian of
    variance .3). At 1 all noise is new, which is the `stochastic_sampling=True` of diffusers.

    Attributes:
        noise_level: in [0, 1]; `cos(noise_level pi / 2)` of the noise is kept. 0.7 is in use.
    """

    noise_level: float = 0.7

    @property
    def largest_noise_level(self) -> float:
        """All noise is new at 1."""
        return 1.0

    def between(self, sigma: float, next_sigma: float, previous_sigma: float | None) -> FlowCoefficients:
        """Return a step that keeps the cosine of an angle."""
        return renoised(sigma, next_sigma, math.cos(self.noise_level * math.pi / 2))


@dataclass(frozen=True)
class Precise(FlowKernel):
    """The kernel `precise`: the SDE with `g = a sqrt(sigma / (1 - sigma))`, solved exactly for a frozen x0.

    Over a step in which `log((1 - sigma) / sigma)` grows by h, `exp(-a^2 h / 2)` of the noise is kept, which goes to 1
    as steps become small. This follows what arXiv 2605.23522 (Zou et al. 2026) says of its sampler: x0 frozen, noise
    even in the log signal-to-noise ratio. It was not compared with the authors' code.

    Attributes:
        noise_level: a, at least 0.
    """

    noise_level: float = 1.0

    def between(self, sigma: float, next_sigma: float, previous_sigma: float | None) -> FlowCoefficients:
        """Return a step whose kept share follows from the log signal-to-noise ratio."""
        growth = log_snr(next_sigma) - log_snr(sigma)
        return renoised(sigma, next_sigma, math.exp(-(self.noise_level**2) * growth / 2))
