"""Experts: the factors of a target. A score on a noise path, and what else may be known of it."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Expert(Protocol):
    """A noised law `q_t`, known by its score.

    An expert may also have
    - `log_density(x, t) -> (B, K)`: exact; needed where exponents change in time, and for exact ratios;
    - `score_and_log_density(x, t)`: both at once;
    - `moments() -> (mean, variance)` of the data, each of the shape of an event: for the initial law, the
      normalizability check and the Gaussian drift control;
    - `tail_variance()`: the variance that determines the tails of the data in each coordinate, where it is not that
      of `moments`;
    - `event_shape`: the shape of one sample;
    - `family`: an object whose `scores(experts, x, t) -> list` evaluates several experts in one call.

    Attributes:
        path: the noise path of the law.
    """

    path: Any

    def score(self, x: Tensor, t: float) -> Tensor:
        """Return the score of `q_t` at x, of the shape of x, (B, K, *event)."""
        ...


@runtime_checkable
class HasLogDensity(Protocol):
    """An expert whose log density is known exactly."""

    def log_density(self, x: Tensor, t: float) -> Tensor:
        """Return `log q_t(x)`, (B, K)."""
        ...


@runtime_checkable
class HasMoments(Protocol):
    """An expert with a Gaussian surrogate of its data."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each coordinate of the data."""
        ...
