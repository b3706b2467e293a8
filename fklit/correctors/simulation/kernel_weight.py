"""The log normalizer of the combined reverse kernel as an increment."""

import math
from collections.abc import Sequence

from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.increment import (
    IncompatibleError,
    Increment,
    exponent_change,
    refuse_control,
    zero_weights,
)
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.simulation.reverse_kernel import ReverseKernel, combined_mean, combined_precision, reverse_mean
from fklit.correctors.targets.dispersion import inner, subtract_dispersion
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt


class KernelWeight(Increment):
    """The log of the integral of `prod_i N(x'; mu_i, v_f)^beta_i K(x | x')^(1 - B)` over x'; K is the forward kernel.

    It has no noise of its own. For guidance it is `beta (beta - 1) |mu_1 - mu_2|^2 / (2 v_f)`. A tilt adds its change
    along the step and, if its gradient moved the mean, the ratio of the kernels.
    """

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse everything but reverse kernels of forward variance without control."""
        if not isinstance(proposal, ReverseKernel):
            raise IncompatibleError(
                f"expected ReverseKernel() with KernelWeight(), which weighs reverse kernels, not "
                f"{type(proposal).__name__}; use ReverseKernel(), or Rate()."
            )
        if proposal.variance != "forward":
            raise IncompatibleError(
                "expected variance='forward' with KernelWeight(), got ReverseKernel(variance='posterior'), whose "
                "weights are worse than none; use variance='forward', or ExactRatio() where log densities exist."
            )
        refuse_control(self, control)

    def log_weight(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval = move.before, move.interval
        exponents = target.exponents(interval.s)
        means = [reverse_mean(before.x, score, interval) for score in before.scores]
        result = kernel_weight(before.x, means, exponents, interval)
        result = result + exponent_change(target, before, interval)
        return result + _tilt_ratio(target, move, combined_mean(before, exponents, interval))


def kernel_weight(
    x: Tensor, means: Sequence[Tensor], exponents: Sequence[float], interval: Interval
) -> Float64[Tensor, "B K"]:
    """Return the log integral of `prod_i N(x'; mu_i, v_f)^beta_i K(x | x')^(1 - B)` over x'.

    Args:
        x: parents (B, K, *event).
        means: `mu_i`, the mean of `x_s` given `x` by each expert, of the shape of x.
        exponents: `beta_i`.
        interval: ratio and variance of the forward kernel K.
    """
    total = sum(exponents)
    precision = combined_precision(total, interval)
    # The integrand is a Gaussian in x' around this center; the remaining squares give the log normalizer.
    center = (1.0 - total) * interval.ratio * x
    for exponent, mean in zip(exponents, means, strict=True):
        center = center + exponent * mean
    center = center / precision
    result = subtract_dispersion(zero_weights(x), means, exponents, center)
    if total != 1.0:
        deviation = x - interval.ratio * center
        result = result - (1.0 - total) * inner(deviation, deviation)
    return result / (2 * interval.variance) - 0.5 * x[0, 0].numel() * math.log(precision)


def _tilt_ratio(target: Target, move: Move, plain_mean: Tensor) -> Tensor:
    """Return `rho(x', s) - rho(x, t)` and the log ratio of the untilted kernel to the one that was drawn from."""
    if move.before.tilt is None or move.mean is None or move.variance is None:
        return zero_weights(move.x)
    assert isinstance(target.tilt, Tilt)
    change = target.tilt.value(move.x, move.interval.s).detach() - move.before.tilt
    drawn, plain = move.x - move.mean, move.x - plain_mean
    return change.double() + (inner(drawn, drawn) - inner(plain, plain)) / (2 * move.variance)
