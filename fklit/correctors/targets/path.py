"""Noise paths: how data become noise, and what one step back costs.

A path is `x_t = a(t) x_0 + s(t) e` with `e ~ N(0, I)` and a time `t` in [0, 1], 0 at the data and 1 at the noise. It is
the law of `dx = c x dt + g dW` with `c = d log a / dt` and `g^2 = 2 s^2 d log(s / a) / dt`. Samplers run from 1 to 0.

Every step is written in what its interval holds in all, `log a(to) - log a(from)` and the integral of `g^2`, both
exact. What a sampler returns therefore depends on the levels that it visits, not on the clock that named them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fklit.checks import check_count

# Gauss-Legendre nodes and weights on [-1, 1], for paths whose noise has no closed integral.
_NODES = (-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640)
_WEIGHTS = (0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891)


@dataclass(frozen=True)
class Interval:
    """One step of a sampler, from the noisier time `t` to `s < t`.

    Attributes:
        t: where it starts.
        s: where it ends.
        growth: `log a(s) - log a(t)`; at least 0 on a path whose signal fades.
        noise: integral of `g^2` over the interval, at least 0.
        ratio: `a(t) / a(s)`, the factor of the forward kernel `N(x_t; ratio x_s, variance)`.
        variance: of that forward kernel, `s(t)^2 - ratio^2 s(s)^2`.
    """

    t: float
    s: float
    growth: float
    noise: float
    ratio: float
    variance: float


def forward_kernel(scale_from: float, sigma_from: float, scale_to: float, sigma_to: float) -> tuple[float, float]:
    """Return `(ratio, variance)` of the forward kernel `N(x_to; ratio x_from, variance)` between two noise levels.

    Args:
        scale_from: `a` at the cleaner level, positive.
        sigma_from: `s` there, at least 0.
        scale_to: `a` at the noisier level.
        sigma_to: `s` there.

    Raises:
        ValueError: if the second level is not the noisier one.
    """
    ratio = scale_to / scale_from
    variance = sigma_to**2 - (ratio * sigma_from) ** 2
    if variance < 0:
        raise ValueError(
            f"The level (scale {scale_to}, sigma {sigma_to}) holds less noise than (scale {scale_from}, sigma "
            f"{sigma_from}), so no forward kernel leads there; swap them."
        )
    return ratio, variance


class NoisePath(ABC):
    """A path from data to noise; subclasses are frozen dataclasses, and equal ones are the same path.

    Attributes:
        start: the time a sampler starts from, at most 1.
        stop: the time it ends at, at least 0.
    """

    start: float = 1.0
    stop: float = 0.0

    @abstractmethod
    def log_scale(self, t: float) -> float:
        """Return `log a(t)`."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """Return `s(t)`."""

    @abstractmethod
    def drift(self, t: float) -> float:
        """Return `c(t) = d log a / dt`."""

    @abstractmethod
    def diffusion(self, t: float) -> float:
        """Return `g(t)^2`."""

    def scale(self, t: float) -> float:
        """Return `a(t)`."""
        return math.exp(self.log_scale(t))

    def level(self, t: float) -> float:
        """Return the noise level `s / a`, which grows with t."""
        return self.sigma(t) / self.scale(t)

    def time_at(self, level: float) -> float:
        """Return the time of a noise level, 0 or 1 for levels outside the path; by bisection."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.level(middle) < level else (low, middle)
        return 0.5 * (low + high)

    def noise(self, t: float, s: float) -> float:
        """Return the integral of `g^2` from `s` to `t`; five nodes of Gauss and Legendre unless a path knows better."""
        middle, half = 0.5 * (t + s), 0.5 * (t - s)
        values = (self.diffusion(middle + half * node) for node in _NODES)
        return half * sum(weight * value for weight, value in zip(_WEIGHTS, values, strict=True))

    def forward(self, s: float, t: float) -> tuple[float, float]:
        """Return `(ratio, variance)` of the forward kernel `N(x_t; ratio x_s, variance)`, `s <= t`."""
        ratio = math.exp(self.log_scale(t) - self.log_scale(s))
        return ratio, max(self.sigma(t) ** 2 - (ratio * self.sigma(s)) ** 2, 0.0)

    def interval(self, t: float, s: float) -> Interval:
        """Return the step from `t` down to `s`.

        Raises:
            ValueError: unless `0 <= s < t <= 1`.
        """
        if not 0 <= s < t <= 1:
            raise ValueError(f"A step from t={t} to s={s} was asked for; times fall, from at most 1 to at least 0.")
        ratio, variance = self.forward(s, t)
        return Interval(t, s, self.log_scale(s) - self.log_scale(t), self.noise(t, s), ratio, variance)

    def grid(self, num_steps: int, *, start: float | None = None, stop: float | None = None) -> tuple[float, ...]:
        """Return `num_steps + 1` falling times, equally spaced on the path's own clock.

        Args:
            num_steps: at least 1.
            start: first time; the path's `start` if not given.
            stop: last time; the path's `stop` if not given.
        """
        check_count("num_steps", num_steps)
        first, last = self.start if start is None else start, self.stop if stop is None else stop
        if not 0 <= last < first <= 1:
            raise ValueError(f"start={first} and stop={last} were given; give 0 <= stop < start <= 1.")
        return (*(first + (last - first) * k / num_steps for k in range(num_steps)), last)


def check_grid(path: NoisePath, times: Sequence[float]) -> tuple[Interval, ...]:
    """Return the intervals of a grid of at least two falling times."""
    if len(times) < 2:
        raise ValueError(f"A grid of {len(times)} times was given; give at least two, falling from noise to data.")
    return tuple(path.interval(t, s) for t, s in pairwise(times))


@dataclass(frozen=True)
class VariancePreserving(NoisePath):
    """`a^2 + s^2 = 1` with `g^2 = beta(t)`, linear from `beta_min` to `beta_max` (Song et al. 2021, 2011.13456)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_scale(self, t: float) -> float:
        """Return minus half the integral of beta up to `t`."""
        return -0.5 * self._integral(t)

    def sigma(self, t: float) -> float:
        """Return `sqrt(1 - a^2)`."""
        return math.sqrt(-math.expm1(-self._integral(t)))

    def drift(self, t: float) -> float:
        """Return `-beta(t) / 2`."""
        return -0.5 * self.diffusion(t)

    def diffusion(self, t: float) -> float:
        """Return `beta(t)`."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def noise(self, t: float, s: float) -> float:
        """Return the integral of beta."""
        return self._integral(t) - self._integral(s)

    def _integral(self, t: float) -> float:
        return t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)


class _Exploding(NoisePath):
    """`a = 1`: all that matters is sigma."""

    def log_scale(self, t: float) -> float:
        """Return 0."""
        return 0.0

    def drift(self, t: float) -> float:
        """Return 0."""
        return 0.0

    def noise(self, t: float, s: float) -> float:
        """Return the difference of the squares of sigma."""
        return self.sigma(t) ** 2 - self.sigma(s) ** 2


@dataclass(frozen=True)
class VarianceExploding(_Exploding):
    """`x_t = x_0 + s(t) e` with `s` geometric in t, from `sigma_min` to `sigma_max`."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        _check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def sigma(self, t: float) -> float:
        """Return `sigma_min^(1 - t) sigma_max^t`."""
        return math.exp((1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def diffusion(self, t: float) -> float:
        """Return `2 s^2 log(sigma_max / sigma_min)`."""
        return 2 * self.sigma(t) ** 2 * math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(_Exploding):
    """`x_t = x_0 + s(t) e` on the clock of Karras et al. 2022 (arXiv 2206.00364, equation 5): `s^(1/rho)` is linear."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        _check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)
        if not self.rho > 0:
            raise ValueError(f"rho={self.rho} was given; give a positive number (7 in the paper).")

    def sigma(self, t: float) -> float:
        """Return the level at `t`."""
        return float(self._root(t) ** self.rho)

    def diffusion(self, t: float) -> float:
        """Return `d s^2 / dt`."""
        slope = self.sigma_max ** (1 / self.rho) - self.sigma_min ** (1 / self.rho)
        return float(2 * self.rho * slope * self._root(t) ** (2 * self.rho - 1))

    def _root(self, t: float) -> float:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return float(low + t * (high - low))


@dataclass(frozen=True)
class LinearFlow(NoisePath):
    """`x_t = (1 - t) x_0 + t e`, the straight path of flow matching.

    The signal is gone at 1, where the drift of the process has a pole: samplers start a hair inside.
    """

    start: float = 0.995
    stop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.stop < self.start < 1:
            raise ValueError(f"start={self.start} and stop={self.stop} were given; give 0 <= stop < start < 1.")

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


@dataclass(frozen=True)
class LinearSigma(NoisePath):
    """`log a` of `VariancePreserving` with `s(t) = t`: the path of the 2-D toys of arXiv 2503.02819."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_scale(self, t: float) -> float:
        """Return minus half the integral of a linear beta up to `t`."""
        return -0.5 * (t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min))

    def sigma(self, t: float) -> float:
        """Return `t`."""
        return t

    def drift(self, t: float) -> float:
        """Return `-beta(t) / 2`."""
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def diffusion(self, t: float) -> float:
        """Return `2 t + t^2 beta(t)`."""
        return 2 * t - 2 * t * t * self.drift(t)


def _check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"{low_name}={low} and {high_name}={high} were given; give 0 < {low_name} < {high_name}.")
