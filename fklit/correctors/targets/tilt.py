"""Rewards in a target: `exp(schedule(t) * reward(x))`, with or without a gradient."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.targets.exponents import Exponent, check_exponent, value_at
from fklit.correctors.targets.path import Interval
from fklit.feynman_kac.potentials import Difference, Potential, get_potential


@dataclass(frozen=True)
class Tilt:
    """A reward with a gradient: it enters the drift by half, and the weight by what is left.

    With `rho = schedule(t) reward(x)` the drift gets `g^2 / 2 * grad rho` (times zeta^2) and the weight the change of
    rho in time and `<grad rho, g^2 / 2 * score - f>`: neither Laplacian nor squared gradient (arXiv 2503.02819,
    proposition 3.4).

    Attributes:
        reward: from x (B, K, *event) to (B, K), or of (x, t) if `timed`.
        schedule: what multiplies it along the path; 0 at the noise end keeps the start plain.
        gradient: from x (or x, t) to the gradient, of the shape of x; autograd if not given.
        timed: whether the reward depends on the time itself.
    """

    reward: Callable[..., Tensor]
    schedule: Exponent = 1.0
    gradient: Callable[..., Tensor] | None = None
    timed: bool = False

    def __post_init__(self) -> None:
        _check_callable("reward", self.reward)
        check_exponent("schedule", self.schedule)

    def value(self, x: Tensor, t: float) -> Tensor:
        """Return `rho(x, t)`, (B, K)."""
        return value_at(self.schedule, t) * _shaped(self.reward(*self._arguments(x, t)), x)

    def change(self, x: Tensor, reward: Tensor, t: float, interval: Interval) -> Float64[Tensor, "B K"]:
        """Return `rho(x, interval.s) - rho(x, interval.t)` at fixed x, (B, K).

        Args:
            x: the samples.
            reward: the reward at x and time t.
            t: that time.
            interval: the step.
        """
        old, new = value_at(self.schedule, interval.t), value_at(self.schedule, interval.s)
        if not self.timed:
            return (new - old) * reward.to(torch.float64)
        first = reward if t == interval.t else _shaped(self.reward(x, interval.t), x)
        second = _shaped(self.reward(x, interval.s), x)
        return (new * second.detach().to(torch.float64)) - old * first.detach().to(torch.float64)

    def reward_and_gradient(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Return the reward at x, (B, K), and the gradient of `rho(x, t)`, of the shape of x."""
        factor = value_at(self.schedule, t)
        if self.gradient is not None:
            gradient = self.gradient(*self._arguments(x, t))
            if gradient.shape != x.shape:
                raise ValueError(
                    f"gradient returned shape {tuple(gradient.shape)} for samples {tuple(x.shape)}; return one of the "
                    "samples' shape."
                )
            return _shaped(self.reward(*self._arguments(x, t)), x).detach(), factor * gradient
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            reward = _shaped(self.reward(*self._arguments(leaf, t)), x)
            if not reward.requires_grad:
                raise ValueError(
                    "the reward has no gradient (its result does not depend on its input through torch); give "
                    "gradient=..., or Tilted(..., gradient=False) to weigh by differences of a black box."
                )
            (gradient,) = torch.autograd.grad(reward.sum(), leaf)
        return reward.detach(), factor * gradient

    def _arguments(self, x: Tensor, t: float) -> tuple[Any, ...]:
        return (x, t) if self.timed else (x,)


@dataclass(frozen=True)
class BlackBoxTilt:
    """A reward without a gradient: FK-steering potentials of the sample's denoised prediction, closed on the sample.

    The proposal does not know it. The weight is exact for `exp(schedule(0) * reward(x_0))` whatever the predictions
    are worth (arXiv 2501.06848).

    Attributes:
        reward: from x (B, K, *event) to (B, K).
        schedule: the reward scale along the path, at least 0; its value at the last time is that of the target.
        potential: "difference", "max", "sum", "terminal", or a `Potential`.
        of: "denoised" scores `E[x_0 | x_t]` by the combined score, "sample" scores x_t itself.
    """

    reward: Callable[[Tensor], Tensor]
    schedule: Exponent = 1.0
    potential: Potential | str = field(default_factory=Difference)
    of: Literal["denoised", "sample"] = "denoised"

    def __post_init__(self) -> None:
        _check_callable("reward", self.reward)
        check_exponent("schedule", self.schedule)
        check_choice("of", self.of, ("denoised", "sample"))
        object.__setattr__(self, "potential", get_potential(self.potential))

    def score(self, x: Tensor) -> Tensor:
        """Return the reward, (B, K)."""
        with torch.no_grad():
            return _shaped(self.reward(x), x)

    def scale(self, t: float) -> float:
        """Return the reward scale at time t."""
        return value_at(self.schedule, t)


def _shaped(reward: Any, x: Tensor) -> Tensor:
    if not isinstance(reward, Tensor) or reward.shape != x.shape[:2]:
        found = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
        raise ValueError(
            f"the reward returned {found} for samples {tuple(x.shape)}; return one number a particle, shape "
            f"{tuple(x.shape[:2])}."
        )
    return reward


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}; give a function of the samples.")
