"""Increments: what one step adds to the log weights, and what each of them needs.

===============  =================================================  ==================================================
increment        log weight of a step                               needs
===============  =================================================  ==================================================
Rate             the weight rate below, times the net interval      small steps; any zeta
KernelWeight     log normalizer of the combined reverse kernel      `ReverseKernel` with the forward variance
ExactRatio       `log gamma_s(x') K(x|x') / (gamma_t(x) F(x'|x))`   exact log densities, and a Gaussian kernel F
Uncorrected      0: the heuristic sampler                           nothing
===============  =================================================  ==================================================

The rate of a target `prod_i q_i^beta_i exp(rho)` with `B = sum_i beta_i`, per unit of time from noise to data, is

    (B - 1) div f + g^2/2 (|S_q|^2 - sum_i beta_i |s_i|^2) + sum_i d(beta_i)/dt log q_i
    + d(rho)/dt + <grad rho, g^2/2 S_q - f> + div c + <c, S>

for any drift control c. Divergences of scores cancel, whatever zeta is, and are nowhere estimated. It contains
propositions 3.1 to 3.4 and D.5 of arXiv 2503.02819.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.proposals import (
    Heun,
    Move,
    Proposal,
    ReverseKernel,
    combined_mean,
    combined_precision,
    reverse_mean,
)
from fklit.correctors.targets.path import Interval, NoisePath
from fklit.correctors.targets.target import Evaluation, Target, inner
from fklit.correctors.targets.tilt import Tilt


class IncompatibleError(ValueError):
    """An increment was asked for that does not fit the proposal, the target or the control."""


class Increment(ABC):
    """A rule for the weight of a step; stateless."""

    def check(  # noqa: B027 (Uncorrected fits everything)
        self, target: Target, proposal: Proposal, control: Control | None
    ) -> None:
        """Raise an `IncompatibleError` if this increment is not right for these."""

    def needs_log_densities(self, changing: bool) -> bool:
        """Return whether `log q_i` at the start of each step is used; `changing` exponents need it by default."""
        return changing

    @abstractmethod
    def weigh(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step, (B, K)."""


class Rate(Increment):
    """The weight rate of the continuous process times the interval; by both ends where Heun evaluated twice.

    A churn raises the noise by the forward kernel, which takes back what the step down gains on the way it doubles:
    the net interval counts (the reference code of arXiv 2503.02819 counts the long one).
    """

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse the kernels of large steps."""
        if isinstance(proposal, ReverseKernel):
            raise IncompatibleError(
                "Rate() is the weight of small steps of the process, not of ReverseKernel(); use KernelWeight() with "
                "variance='forward', or ExactRatio()."
            )

    def weigh(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval, descent = move.before, move.interval, move.descent
        result = rate(target, before, interval)
        if move.after is not None:
            # The step down and the churn before it, each by its two ends instead of the one that `rate` took.
            path = target.path
            down = _between(path, before.spread, descent.t, move.after.spread, descent.s)
            result = result + down - 0.5 * path.noise(descent.t, descent.s) * before.spread
            if move.arrival is not None and descent.t > interval.t:
                up = _between(path, before.spread, descent.t, move.arrival, interval.t)
                result = result - up + 0.5 * path.noise(descent.t, interval.t) * before.spread
        return result if move.shift_weight is None else result + move.shift_weight


class KernelWeight(Increment):
    """The log of the integral of `prod_i N(x'; mu_i, v_f)^beta_i K(x | x')^(1 - B)` over x'; K is the forward kernel.

    It has no noise of its own. For guidance it is `beta (beta - 1) |mu_1 - mu_2|^2 / (2 v_f)`. A tilt adds its change
    along the step and, if its gradient moved the mean, the ratio of the kernels.
    """

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse everything but reverse kernels of forward variance without control."""
        if not isinstance(proposal, ReverseKernel):
            raise IncompatibleError(
                f"KernelWeight() weighs reverse kernels, not {type(proposal).__name__}; use ReverseKernel(), or Rate()."
            )
        if proposal.variance != "forward":
            raise IncompatibleError(
                "KernelWeight() with ReverseKernel(variance='posterior') was asked for, whose weights are worse than "
                "none; draw with variance='forward', or use ExactRatio() where log densities exist."
            )
        _refuse_control(self, control)

    def weigh(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval = move.before, move.interval
        exponents = target.exponents(interval.s)
        means = [reverse_mean(before.x, score, interval) for score in before.scores]
        result = kernel_weight(before.x, means, exponents, interval)
        result = result + _exponent_change(target, before, interval)
        return result + _tilt_ratio(target, move, combined_mean(before, exponents, interval))


class ExactRatio(Increment):
    """`log gamma_s(x') - log gamma_t(x) + log K(x | x') - log F(x' | x)`: unbiased at any step size."""

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse targets without exact densities and proposals without one."""
        if not target.has_log_densities:
            raise IncompatibleError(
                "ExactRatio() needs log_density(x, t) of every expert; use Rate() or KernelWeight(), which need scores."
            )
        if isinstance(proposal, Heun) or not proposal.has_kernel:
            raise IncompatibleError(
                f"ExactRatio() needs the density of the step, which {proposal!r} has not; use EulerMaruyama with noise "
                "or ReverseKernel."
            )
        _refuse_control(self, control)

    def needs_log_densities(self, changing: bool) -> bool:
        """Always."""
        return True

    def weigh(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval = move.before, move.interval
        if move.mean is None or move.variance is None:
            raise IncompatibleError(
                f"the step from t={interval.t:g} to {interval.s:g} had no noise, so its exact ratio is undefined; end "
                "the grid where noise is left."
            )
        assert before.log_densities is not None
        dim = before.x[0, 0].numel()
        start = sum((e * q for e, q in zip(before.exponents, before.log_densities, strict=True)), _zeros(before.x))
        if before.tilt is not None:
            start = start + before.tilt
        back = _log_gaussian(before.x - interval.ratio * move.x, interval.variance, dim)
        forth = _log_gaussian(move.x - move.mean, move.variance, dim)
        return target.log_gamma(move.x, interval.s) - start + back - forth


class Uncorrected(Increment):
    """No weights: the heuristic sampler, to compare with."""

    def needs_log_densities(self, changing: bool) -> bool:
        """Never."""
        return False

    def weigh(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return zeros."""
        return _zeros(move.x)


def rate(target: Target, before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return the integral of the weight rate over an interval, without drift control.

    Args:
        target: the target, for exponents and tilt at the end of the interval.
        before: the target at the samples; with `log_densities` if exponents change.
        interval: the net interval.
    """
    result = spread_rate(before, interval) + _exponent_change(target, before, interval)
    if before.tilt_gradient is None or before.tilt is None:
        return result
    assert isinstance(target.tilt, Tilt)
    assert before.reward is not None
    change = target.tilt.change(before.x, before.reward, before.t, interval)
    drift = 0.5 * interval.noise * before.score + interval.growth * before.x
    return result + change.to(torch.float64) + inner(before.tilt_gradient, drift)


def spread_rate(before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return `(B - 1) div f` and the spread of the scores, integrated over an interval."""
    dim = before.x[0, 0].numel()
    return 0.5 * interval.noise * before.spread - (before.total_exponent - 1.0) * dim * interval.growth


def _between(path: NoisePath, noisy: Tensor, t: float, clean: Tensor, s: float) -> Tensor:
    """Return half the integral of `g^2 spread` from s to t, given the spread at both ends.

    Trapezoid in the log of the level, where `g^2 dt = 2 sigma^2 d(log level)`: the spread of scores goes with a high
    power of the level, so that a trapezoid in `g^2 dt` would overrate long steps by far.
    """
    length = math.log(path.level(t) / path.level(s))
    return 0.5 * length * (path.sigma(t) ** 2 * noisy + path.sigma(s) ** 2 * clean)


def kernel_weight(
    x: Tensor, means: "list[Tensor]", exponents: "tuple[float, ...]", interval: Interval
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
    center = (1.0 - total) * interval.ratio * x
    for exponent, mean in zip(exponents, means, strict=True):
        center = center + exponent * mean
    center = center / precision
    result = _zeros(x)
    for exponent, mean in zip(exponents, means, strict=True):
        away = mean - center
        result = result - exponent * inner(away, away)
    if total != 1.0:
        away = x - interval.ratio * center
        result = result - (1.0 - total) * inner(away, away)
    return result / (2 * interval.variance) - 0.5 * x[0, 0].numel() * math.log(precision)


def _exponent_change(target: Target, before: Evaluation, interval: Interval) -> Tensor:
    """Return `sum_i (beta_i(s) - beta_i(t)) log q_i(x, t)`."""
    result = _zeros(before.x)
    changes = zip(target.exponents(interval.s), target.exponents(interval.t), strict=True)
    for number, (new, old) in enumerate(changes):
        if new != old:
            assert before.log_densities is not None
            result = result + (new - old) * before.log_densities[number]
    return result


def _tilt_ratio(target: Target, move: Move, plain_mean: Tensor) -> Tensor:
    """Return `rho(x', s) - rho(x, t)` and the log ratio of the untilted kernel to the one that was drawn from."""
    if move.before.tilt is None or move.mean is None or move.variance is None:
        return _zeros(move.x)
    assert isinstance(target.tilt, Tilt)
    change = target.tilt.value(move.x, move.interval.s).detach() - move.before.tilt
    drawn, plain = move.x - move.mean, move.x - plain_mean
    return change.to(torch.float64) + (inner(drawn, drawn) - inner(plain, plain)) / (2 * move.variance)


def _refuse_control(increment: Increment, control: Control | None) -> None:
    if control is not None:
        raise IncompatibleError(
            f"{type(control).__name__} changes the process whose rate is weighed, so it needs Rate(); leave control= "
            f"away with {type(increment).__name__}()."
        )


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)


def _log_gaussian(away: Tensor, variance: float, dim: int) -> Tensor:
    return -0.5 * inner(away, away) / variance - 0.5 * dim * math.log(2 * math.pi * variance)
