"""Draws from the product of the experts' Gaussian reverse kernels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.simulation.proposal import Move, Proposal, ProposalError
from fklit.correctors.simulation.tilt_step import refuse_stiff
from fklit.correctors.targets.dispersion import weighted_sum
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import Generators, normals


@dataclass(frozen=True)
class ReverseKernel(Proposal):
    """The experts' Gaussian reverse kernels, combined: for few steps, and for the samplers of pretrained models.

    Expert i's kernel from t to s is `N(mu_i, v)` with `mu_i = (x + v_f score_i) / r`, `r` and `v_f` being factor and
    variance of the forward kernel. With `variance="forward"`, `v = v_f`, the samples are drawn from the normalized
    `prod_i N(mu_i, v_f)^beta_i K(x | x')^(1 - B)` with K the forward kernel: exact for Gaussian experts, and of
    constant weight given x. `variance="posterior"` draws with the variance of x_s given x_t and x_0, as DDPM and DDIM
    with eta = 1 do: right for a plain sampler, and useless for kernel weights.

    Attributes:
        variance: "forward" or "posterior".
    """

    variance: Literal["forward", "posterior"] = "forward"
    has_kernel = True

    def __post_init__(self) -> None:
        check_choice("variance", self.variance, ("forward", "posterior"))

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:
        """Raise where the combined kernel has no positive precision."""
        for interval in intervals:
            total = sum(target.exponents(interval.s))
            precision = combined_precision(total, interval)
            if precision <= 0:
                raise ProposalError(
                    f"expected a combined reverse kernel of positive variance, got exponents of sum {total:g} at "
                    f"t={interval.s:g}, which leave none for a step from t={interval.t:g}; take more steps, or "
                    "EulerMaruyama."
                )

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Draw from the combined kernel; a tilt's gradient moves its mean by the variance times the gradient."""
        x = before.x
        exponents = target.exponents(interval.s)
        mean = combined_mean(before, exponents, interval)
        variance = interval.variance / combined_precision(sum(exponents), interval)
        if self.variance == "posterior":
            path = target.path
            variance = variance * (path.sigma(interval.s) / path.sigma(interval.t)) ** 2
        if before.tilt_gradient is not None:
            plain = mean
            mean = plain + variance * before.tilt_gradient
            refuse_stiff(
                target, before, interval, plain, mean, variance=variance, way="take more steps, or EulerMaruyama()"
            )
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        new = mean + math.sqrt(variance) * noise
        if variance == 0:
            return Move(before, interval, new, denoising_interval)
        return Move(before, interval, new, denoising_interval, mean=mean, variance=variance)


def combined_precision(total: float, interval: Interval) -> float:
    """Return the precision of the combined reverse kernel in units of `1 / v_f`: `B + (1 - B) r^2`."""
    return total + (1.0 - total) * interval.ratio**2


def reverse_mean(x: Tensor, score: Tensor, interval: Interval) -> Tensor:
    """Return the mean of x_s given x_t = x for an expert with this score: `(x + v_f score) / r`."""
    return (x + interval.variance * score) / interval.ratio


def combined_mean(before: Evaluation, exponents: Sequence[float], interval: Interval) -> Tensor:
    """Return the mean of the combined reverse kernel, `(sum_i beta_i mu_i + (1 - B) r x) / (B + (1 - B) r^2)`."""
    total = sum(exponents)
    combined = before.score
    if tuple(exponents) != before.exponents:
        combined = weighted_sum(before.scores, exponents)
    means = (total * before.x + interval.variance * combined) / interval.ratio
    return (means + (1.0 - total) * interval.ratio * before.x) / combined_precision(total, interval)
