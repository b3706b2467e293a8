"""Noise paths: how data become noise, and the coefficients of one step back.

A path is `x_t = a(t) x_0 + s(t) e` with `e ~ N(0, I)` and a time `t` in [0, 1], 0 at the data and 1 at the noise. It is
the law of `dx = c x dt + g dW` with `c = d log a / dt` and `g^2 = 2 s^2 d log(s / a) / dt`. Samplers run from 1 to 0.

Every step is written with integrals over its interval, `log a(to) - log a(from)` and the integral of `g^2`, both
exact. What a sampler returns therefore depends on the noise levels that it visits, not on the parameterization of time.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
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
        """Return the time of a noise level, by bisection; 0 or 1 for levels outside the path."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.level(middle) < level else (low, middle)
        return 0.5 * (low + high)

    def noise(self, t: float, s: float) -> float:
        """Return the integral of `g^2` from `s` to `t`: Gauss-Legendre quadrature unless a path has a closed form."""
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
            raise ValueError(f"expected falling times 0 <= s < t <= 1, got a step from t={t} to s={s}; sort the grid.")
        ratio, variance = self.forward(s, t)
        return Interval(t, s, self.log_scale(s) - self.log_scale(t), self.noise(t, s), ratio, variance)

    def grid(self, num_steps: int, *, start: float | None = None, stop: float | None = None) -> tuple[float, ...]:
        """Return `num_steps + 1` falling times, equally spaced in the path's own time.

        Args:
            num_steps: at least 1.
            start: first time; the path's `start` if not given.
            stop: last time; the path's `stop` if not given.
        """
        check_count("num_steps", num_steps)
        first, last = self.start if start is None else start, self.stop if stop is None else stop
        if not 0 <= last < first <= 1:
            raise ValueError(f"expected 0 <= stop < start <= 1, got start={first} and stop={last}; times fall.")
        return (*(first + (last - first) * k / num_steps for k in range(num_steps)), last)


def check_grid(path: NoisePath, times: Sequence[float]) -> tuple[Interval, ...]:
    """Return the intervals of a grid of at least two falling times."""
    if len(times) < 2:
        raise ValueError(f"expected a grid of at least two falling times, got {len(times)}; use path.grid(num_steps).")
    return tuple(path.interval(t, s) for t, s in pairwise(times))


def times_of(times: Iterable[float] | None) -> tuple[float, ...]:
    """Return times as numbers of Python, also those of an array; none for None."""
    return () if times is None else tuple(float(t) for t in times)


def check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raise a ValueError unless `0 < low < high` and both are finite."""
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"expected 0 < {low_name} < {high_name}, got {low_name}={low} and {high_name}={high}; swap them."
        )
