"""Exponents of experts: numbers, or numbers that change along the path."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fklit.checks import as_number

Exponent = float | Callable[[float], float]
"""A number, or a function of the path's time t, from 1 (noise) to 0 (data)."""


@dataclass(frozen=True)
class Ramp:
    """`first` where `t >= start`, then a straight line in t to `last` at `t <= stop`.

    Attributes:
        first: value at the noise end.
        last: value at the data end.
        start: time at which it leaves `first`.
        stop: time at which it reaches `last`, below `start`.
    """

    first: float
    last: float
    start: float = 1.0
    stop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.stop < self.start <= 1:
            raise ValueError(
                f"expected 0 <= stop < start <= 1, got start={self.start} and stop={self.stop}; times fall from 1 to 0."
            )

    @classmethod
    def late(cls, last: float, start: float = 0.6) -> "Ramp":
        """Return 1 until time `start`, then a straight line to `last`.

        Annealing at a constant exponent is decided at high noise levels, where the score is not informative; with a
        late ramp the target is the base model's own marginal there, so that the base model sets the masses of the
        modes. It needs a weight with log densities.

        Args:
            last: value at the data end.
            start: time at which it leaves 1; 0.3 to 0.6 is usual.
        """
        return cls(1.0, last, start=start)

    def __call__(self, t: float) -> float:
        """Return the value at time `t`."""
        done = min(max((self.start - t) / (self.start - self.stop), 0.0), 1.0)
        return self.first + done * (self.last - self.first)


@dataclass(frozen=True)
class Times:
    """The product of two exponents."""

    left: Exponent
    right: Exponent

    def __call__(self, t: float) -> float:
        """Return the value at time `t`."""
        return value_at(self.left, t) * value_at(self.right, t)


@dataclass(frozen=True)
class Complement:
    """1 minus an exponent that changes in time."""

    exponent: Callable[[float], float]

    def __call__(self, t: float) -> float:
        """Return the value at time `t`."""
        return 1.0 - self.exponent(t)


def value_at(exponent: Exponent, t: float) -> float:
    """Return the exponent at time `t`.

    Raises:
        ValueError: if it is not finite.
    """
    value = float(exponent(t)) if callable(exponent) else float(exponent)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite exponent, got {value} at t={t} from {exponent!r}; return finite numbers.")
    return value


def times(left: Exponent, right: Exponent) -> Exponent:
    """Return the product of two exponents, a number if both are."""
    if callable(left) or callable(right):
        return Times(left, right)
    return left * right


def complement(exponent: Exponent) -> Exponent:
    """Return 1 minus an exponent, a number if it is one."""
    return Complement(exponent) if callable(exponent) else 1.0 - exponent


def check_exponent(name: str, exponent: object) -> Exponent:
    """Return `exponent` if it is a finite number or a function of time."""
    if callable(exponent):
        return exponent
    number = as_number(exponent)
    if number is None or not math.isfinite(number):
        raise TypeError(
            f"expected a finite number or a function of the time t, got {name}={exponent!r}; pass for example 2.0."
        )
    return float(number)
