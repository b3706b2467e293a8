"""The second-order SDE solver of DPM-Solver++, in its form for flow-matching models."""

import math
from dataclasses import dataclass

from fklit.pipelines.flow.kernel import FlowCoefficients, FlowKernel, log_snr


@dataclass(frozen=True)
class SDEDPMSolver(FlowKernel):
    """The kernel `sde-dpmsolver++` of second order (Lu et al. 2022, arXiv 2211.01095, appendix C; diffusers' `2M`).

    With `lambda = log((1 - s) / s)`, its growths h of this and h' of the step before, and `q = h / h'`:

        x' = (s' / s) exp(-eta h) x + (1 - s') (1 - exp(-(1 + eta) h)) (x0 + q / 2 (x0 - x0_before))
             + s' sqrt(1 - exp(-2 eta h)) z

    The step from s = 1, where h is infinite, is `x' = (1 - s') x0 + s' z`; the step after it uses no history.

    Attributes:
        noise_level: eta, at least 0; 1 is the reverse-time SDE of the flow.
        largest_ratio: most that q may be. Grids of flow models end in a step of a huge h (SD3: from .11 to .0089), at
            which the extrapolation overshoots; infinity is the solver as published.
    """

    noise_level: float = 1.0
    largest_ratio: float = math.inf

    @property
    def uses_change(self) -> bool:
        """The order is 2."""
        return True

    def between(self, sigma: float, next_sigma: float, previous_sigma: float | None) -> FlowCoefficients:
        """Return the coefficients; see the class."""
        growth = log_snr(next_sigma) - log_snr(sigma)
        denoised = (1 - next_sigma) * -math.expm1(-(1 + self.noise_level) * growth)
        ratio = 0.0
        if previous_sigma is not None:
            before = log_snr(sigma) - log_snr(previous_sigma)  # infinite after a first step from s = 1: no history
            ratio = min(growth / before, self.largest_ratio)
        return FlowCoefficients(
            sample=next_sigma / sigma * math.exp(-self.noise_level * growth),
            denoised=denoised,
            std=next_sigma * math.sqrt(-math.expm1(-2 * self.noise_level * growth)),
            change=denoised * ratio / 2,
        )
