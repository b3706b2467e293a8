"""Proposals: how particles take one step from noise to data. None of them knows about weights.

==================  ==========================================================  =======================================
proposal            step                                                        its kernel
==================  ==========================================================  =======================================
EulerMaruyama       drift `-f + g^2/2 S_q + zeta^2 g^2/2 S`, noise `zeta g`     Gaussian, unless zeta = 0
Heun                churn up by the forward kernel, probability-flow ODE down   none
ReverseKernel       the locally optimal product of the experts' kernels         Gaussian
==================  ==========================================================  =======================================

`f = c x` and `g` belong to the noise path, `S_q` is the combined score and `S` adds the tilt's gradient. Every zeta
leaves the same target (and the same weight), since it only adds a Langevin kernel that leaves the target invariant.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fklit.checks import check_choice, check_non_negative
from fklit.correctors.targets.path import Interval, NoisePath
from fklit.correctors.targets.target import Evaluation, Target
from fklit.feynman_kac.randomness import Generators, normals

Zeta = float | Callable[[float], float] | Literal["target_score", "tempered_noise", "ode"]


class ProposalError(ValueError):
    """A proposal that this target does not have."""


@dataclass(frozen=True)
class Move:
    """One step that was taken.

    Attributes:
        before: the evaluation at which the step was computed (for Heun, after the churn).
        interval: the net interval of the step; the one that weights count.
        x: the new samples, (B, K, *event).
        descent: the interval that the step down covered; longer than `interval` after a churn.
        mean, variance: of the Gaussian kernel the samples were drawn from, or None.
        after: Heun's second evaluation, or None.
        arrival: `spread` of the second evaluation of the step before, (B, K), or None.
        shift_weight: what the drift control adds to the log weight, (B, K), or None.
    """

    before: Evaluation
    interval: Interval
    x: Tensor
    descent: Interval
    mean: Tensor | None = None
    variance: float | None = None
    after: Evaluation | None = None
    arrival: Tensor | None = None
    shift_weight: Tensor | None = None


class Proposal(ABC):
    """How particles move; see the module's table for the ones that exist."""

    has_kernel = False
    """Whether the step is a draw from a Gaussian kernel whose density is known."""

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:  # noqa: B027
        """Raise a `ProposalError` if a step is not defined for this target."""

    def prepare(self, path: NoisePath, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Return the samples at which the target is evaluated and the interval of the step down from there."""
        return x, interval

    @abstractmethod
    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        descent: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take the step.

        Args:
            target: for proposals that evaluate it again.
            before: the target at the prepared samples.
            interval: the net interval.
            descent: the interval from there down.
            shift: displacement of the drift control, of the shape of x, or None.
            generator: for the noise.
        """

    def noise_level(self, target: Target, t: float) -> float | None:
        """Return zeta at time t, or None if the proposal has none."""
        return None


@dataclass(frozen=True)
class EulerMaruyama(Proposal):
    """The reverse process of the target with any amount of noise.

    Attributes:
        zeta: a number of at least 0, a function of the time, or a name: "target_score" (1), "ode" (0), or
            "tempered_noise" (`1 / sqrt(beta)`, for targets all of whose exponents are the same beta). At beta above 1
            tempered noise drops modes that no weight brings back; at zeta 0 clones of a particle never separate.
    """

    zeta: Zeta = "target_score"

    def __post_init__(self) -> None:
        if isinstance(self.zeta, str):
            check_choice("zeta", self.zeta, ("target_score", "tempered_noise", "ode"))
        elif not callable(self.zeta):
            check_non_negative("zeta", self.zeta)

    @property
    def has_kernel(self) -> bool:  # type: ignore[override]
        """Whether there is noise."""
        return self.zeta != "ode" and self.zeta != 0

    def noise_level(self, target: Target, t: float) -> float:
        """Return zeta at time t."""
        if self.zeta == "target_score":
            return 1.0
        if self.zeta == "ode":
            return 0.0
        if self.zeta == "tempered_noise":
            exponents = target.exponents(t)
            if min(exponents) <= 0 or max(exponents) - min(exponents) > 1e-9 * max(exponents):
                raise ProposalError(
                    f"zeta='tempered_noise' was asked for exponents {exponents} at t={t:g}; it is defined where all "
                    "are the same positive number, so give zeta as a number instead."
                )
            return 1.0 / math.sqrt(exponents[0])
        value = float(self.zeta(t)) if callable(self.zeta) else float(self.zeta)
        return check_non_negative(f"zeta at t={t:g}", value)

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:
        """Raise where zeta is not defined."""
        for interval in intervals:
            self.noise_level(target, interval.t)

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        descent: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take one Euler-Maruyama step."""
        zeta = self.noise_level(target, interval.t)
        x = before.x
        mean = x + interval.growth * x + 0.5 * interval.noise * before.score
        if zeta > 0:
            mean = mean + 0.5 * zeta**2 * interval.noise * before.total_score
        if shift is not None:
            mean = mean + shift
        if zeta == 0:
            return Move(before, interval, mean, descent)
        variance = zeta**2 * interval.noise
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        return Move(before, interval, mean + math.sqrt(variance) * noise, descent, mean=mean, variance=variance)


@dataclass(frozen=True)
class Heun(Proposal):
    """The sampler of Karras et al. 2022 (arXiv 2206.00364, algorithm 2): churn up, then Heun's step down the ODE.

    Noise is added by the forward kernel, so that the step is exact for every target; the paper's inflation of that
    noise is not, and is not offered.

    Attributes:
        churn: the relative rise of the noise level `s / a` at each step, at least 0 (`S_churn / num_steps` in the
            paper, whose bound is 0.41). At 0 clones never separate.
        lowest: level below which there is no churn.
        highest: level above which there is none. It never rises above the level at t = 1.
        second_order: whether the step is corrected at its end; False is Euler's step.
    """

    churn: float = 0.1
    lowest: float = 0.0
    highest: float = math.inf
    second_order: bool = True

    def __post_init__(self) -> None:
        check_non_negative("churn", self.churn)
        if not 0 <= self.lowest < self.highest:
            raise ValueError(f"lowest={self.lowest} and highest={self.highest} were given; give 0 <= lowest < highest.")

    def prepare(self, path: NoisePath, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Raise the noise."""
        level = path.level(interval.t)
        if self.churn == 0 or not self.lowest <= level <= self.highest:
            return x, interval
        top = path.time_at(level * (1 + self.churn))
        if top <= interval.t:
            return x, interval
        ratio, variance = path.forward(interval.t, top)
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        return ratio * x + math.sqrt(variance) * noise, path.interval(top, interval.s)

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        descent: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take one step down the ODE."""
        x, path = before.x, target.path
        high, low = path.level(descent.t), path.level(descent.s)
        # In y = x / a and the level the ODE is dy / d(level) = -level a S_q, on every path.
        first = -high * path.scale(descent.t) * before.score
        start = x / path.scale(descent.t)
        step = (low - high) * first
        end = (start + step) * path.scale(descent.s)
        if shift is not None:
            end = end + shift
        if not self.second_order or low == 0:
            return Move(before, interval, end, descent)
        after = target.evaluate(end, descent.s, tilt=False, finite=False)  # the weight tells of what is not finite
        second = -low * path.scale(descent.s) * after.score
        moved = (start + 0.5 * (low - high) * (first + second)) * path.scale(descent.s)
        return Move(before, interval, moved if shift is None else moved + shift, descent, after=after)


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
                    f"the exponents sum to {total:g} at t={interval.s:g}, where the combined reverse kernel of a step "
                    f"from t={interval.t:g} has no positive variance; take more steps, or EulerMaruyama."
                )

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        descent: Interval,
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
            mean = mean + variance * before.tilt_gradient
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        new = mean + math.sqrt(variance) * noise
        if variance == 0:
            return Move(before, interval, new, descent)
        return Move(before, interval, new, descent, mean=mean, variance=variance)


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
        combined = torch.zeros_like(before.x)
        for exponent, score in zip(exponents, before.scores, strict=True):
            combined = combined + exponent * score
    means = (total * before.x + interval.variance * combined) / interval.ratio
    return (means + (1.0 - total) * interval.ratio * before.x) / combined_precision(total, interval)
