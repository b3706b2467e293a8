"""The weight rate of the continuous process as an increment."""

import math

from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.increment import IncompatibleError, Increment, exponent_change
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.simulation.reverse_kernel import ReverseKernel
from fklit.correctors.targets.dispersion import inner
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval, NoisePath
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt


class Rate(Increment):
    """The weight rate of the continuous process times the interval; a trapezoid where Heun evaluated twice.

    A churn raises the noise level by the forward kernel, whose weight cancels that of denoising the same interval
    again: the net interval counts (the reference code of arXiv 2503.02819 counts the long one).
    """

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse the kernels of large steps."""
        if isinstance(proposal, ReverseKernel):
            raise IncompatibleError(
                "expected small steps of the process with Rate(), got ReverseKernel(); use KernelWeight() with "
                "variance='forward', or ExactRatio()."
            )

    def log_weight(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval, denoising, path = move.before, move.interval, move.denoising_interval, target.path
        if move.tilt_weight is None:
            result = rate(target, before, interval)
        else:  # the step was split, and the tilt's own change along it is known
            result = untilted_rate(target, before, interval) + move.tilt_weight
        if move.after is not None:
            # `rate` took the dispersion of one end for the net interval, which is the denoising step less the churn.
            # Replace it by trapezoids: first that of the denoising step ...
            dispersion = before.score_dispersion
            both = _trapezoid(path, dispersion, denoising.t, move.after.score_dispersion, denoising.s)
            result = result + both - 0.5 * path.noise(denoising.t, denoising.s) * dispersion
            if move.previous_dispersion is not None and denoising.t > interval.t:
                # ... then that of the churn, whose other end is the end of the previous step.
                both = _trapezoid(path, dispersion, denoising.t, move.previous_dispersion, interval.t)
                result = result - both + 0.5 * path.noise(denoising.t, interval.t) * dispersion
        return result if move.shift_weight is None else result + move.shift_weight


def rate(target: Target, before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return the integral of the weight rate over an interval, without drift control.

    Args:
        target: the target, for exponents and tilt at the end of the interval.
        before: the target at the samples; with `log_densities` if exponents change.
        interval: the net interval.
    """
    result = untilted_rate(target, before, interval)
    if before.tilt_gradient is None or before.tilt is None:
        return result
    assert isinstance(target.tilt, Tilt)
    assert before.reward is not None
    change = target.tilt.change(before.x, before.reward, before.t, interval)
    drift = 0.5 * interval.noise * before.score + interval.growth * before.x
    return result + change + inner(before.tilt_gradient, drift)


def untilted_rate(target: Target, before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return the integral of the weight rate of the experts alone; arguments as for `rate`."""
    return dispersion_rate(before, interval) + exponent_change(target, before, interval)


def dispersion_rate(before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return `(B - 1) div f` and half of `g^2` times the score dispersion, integrated over an interval."""
    dim = before.x[0, 0].numel()
    return 0.5 * interval.noise * before.score_dispersion - (before.total_exponent - 1.0) * dim * interval.growth


def _trapezoid(path: NoisePath, noisy: Tensor, t: float, clean: Tensor, s: float) -> Tensor:
    """Return half the integral of `g^2` times the dispersion from s to t, given the dispersion at both ends.

    Trapezoid in the log of the level, where `g^2 dt = 2 sigma^2 d(log level)`: the dispersion grows with a high power
    of the inverse level, so that a trapezoid in `g^2 dt` would overestimate long steps by far.
    """
    length = math.log(path.level(t) / path.level(s))
    return 0.5 * length * (path.sigma(t) ** 2 * noisy + path.sigma(s) ** 2 * clean)
