"""What all kernels of flow matching share: a Gaussian step, linear in the sample and its denoised prediction.

A flow-matching model has `x = (1 - sigma) x0 + sigma e` with noise e, and predicts `v = e - x0`, from which
`x0 = x - sigma v`. Every published kernel draws the next sample from a Gaussian of one standard deviation, whose mean
is a combination of x, of the prediction x0, and of how x0 has changed since the step before.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fklit.pipelines.transition import Transition


@dataclass(frozen=True)
class FlowCoefficients:
    """One step of a kernel: `next = sample x + denoised x0 + change (x0 - previous x0) + std z`.

    Attributes:
        sample: factor of x.
        denoised: factor of the denoised prediction x0.
        std: of the noise, at least 0.
        change: factor of the change of x0 since the step before; 0 for kernels of first order.
    """

    sample: float
    denoised: float
    std: float
    change: float = 0.0


@dataclass(frozen=True)
class FlowKernel(ABC):
    """A stochastic step between two noise levels of a flow-matching model.

    Attributes:
        noise_level: how much noise the steps inject, at least 0; its meaning is the kernel's own. At 0 the pipeline's
            own step is called instead.
    """

    noise_level: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_level) and 0 <= self.noise_level <= self.largest_noise_level):
            most = "" if math.isinf(self.largest_noise_level) else f" and at most {self.largest_noise_level:g}"
            raise ValueError(
                f"expected noise_level of at least 0{most} for {type(self).__name__}, got {self.noise_level!r}; give "
                "such a number."
            )

    @property
    def largest_noise_level(self) -> float:
        """The largest noise level that the kernel takes; of most any finite one."""
        return math.inf

    @property
    def uses_change(self) -> bool:
        """Whether the step needs the denoised prediction of the step before."""
        return False

    @abstractmethod
    def between(self, sigma: float, next_sigma: float, previous_sigma: float | None) -> FlowCoefficients:
        """Return the coefficients of a step with `0 < next_sigma < sigma < 1`, or from 1 (see `coefficients`)."""

    def coefficients(self, sigma: float, next_sigma: float, previous_sigma: float | None = None) -> FlowCoefficients:
        """Return the coefficients of a step.

        The last step, to 0, returns the denoised prediction without noise, whatever the kernel: noise at the end would
        be seen.

        Args:
            sigma: noise level of the sample, in (0, 1].
            next_sigma: noise level after the step, in [0, sigma).
            previous_sigma: noise level of the step before, for kernels that use the change of x0; None if there is
                none.

        Raises:
            ValueError: the levels do not fall, or are outside of (0, 1].
        """
        # Grids in float32 may start a rounding above 1.
        sigma, previous_sigma = _at_most_one(sigma), None if previous_sigma is None else _at_most_one(previous_sigma)
        if not 0 <= next_sigma < sigma <= 1 or (previous_sigma is not None and previous_sigma <= sigma):
            raise ValueError(
                f"expected noise levels that fall from at most 1 to at least 0, got {previous_sigma} to {sigma} to "
                f"{next_sigma}; use a scheduler whose grid falls."
            )
        if next_sigma == 0:
            return FlowCoefficients(0.0, 1.0, 0.0)
        return self.between(sigma, next_sigma, previous_sigma)

    def transition(
        self,
        sample: Tensor,
        denoised: Tensor,
        sigma: float,
        next_sigma: float,
        *,
        previous: Tensor | None = None,
        previous_sigma: float | None = None,
    ) -> Transition:
        """Return the law of the next samples.

        Args:
            sample: x, (N, ...), floating point.
            denoised: x0, of the same shape.
            sigma: noise level of the sample, in (0, 1].
            next_sigma: noise level after the step, in [0, sigma).
            previous: x0 of the step before; None if there is none.
            previous_sigma: noise level of the step before.
        """
        found = self.coefficients(sigma, next_sigma, None if previous is None else previous_sigma)
        mean = found.sample * sample + found.denoised * denoised
        if found.change != 0 and previous is not None:
            mean = mean + found.change * (denoised - previous)
        return Transition(mean, found.std)


def _at_most_one(sigma: float) -> float:
    return 1.0 if 1 < sigma <= 1 + 1e-5 else sigma


def log_snr(sigma: float) -> float:
    """Return `log((1 - sigma) / sigma)`, half the log of the signal-to-noise ratio; minus infinity at 1."""
    return -math.inf if sigma >= 1 else math.log1p(-sigma) - math.log(sigma)
