"""Rewards in a target: `exp(reward_scale(t) * reward(x))`, with or without a gradient."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.targets.exponents import Exponent, check_exponent, value_at
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.feynman_kac.potentials import Difference, Potential, get_potential


@dataclass(frozen=True)
class Tilt:
    """A reward with a gradient: half of its gradient enters the drift, the rest the weight.

    With `rho = reward_scale(t) reward(x)` the drift gets `g^2 / 2 * grad rho` (times zeta^2) and the weight the change
    of rho in time and `<grad rho, g^2 / 2 * score - f>`: neither Laplacian nor squared gradient (arXiv 2503.02819,
    proposition 3.4).

    Attributes:
        reward: from x (B, K, *event) to (B, K), or of (x, t) if `time_dependent`.
        reward_scale: a number, or a function of t; 0 at the noise end leaves the initial law untilted.
        gradient: from x (or x, t) to the gradient, of the shape of x; autograd if not given.
        time_dependent: whether the reward depends on the time itself.
    """

    reward: Callable[..., Tensor]
    reward_scale: Exponent = 1.0
    gradient: Callable[..., Tensor] | None = None
    time_dependent: bool = False

    def __post_init__(self) -> None:
        _check_callable("reward", self.reward)
        check_exponent("reward_scale", self.reward_scale)

    def value(self, x: Tensor, t: float) -> Tensor:
        """Return `rho(x, t)`, (B, K)."""
        return self.scaled(_shaped(self.reward(*self._arguments(x, t)), x), t)

    def scaled(self, reward: Tensor, t: float) -> Tensor:
        """Return `rho` at time t of a known reward, (B, K)."""
        return value_at(self.reward_scale, t) * reward

    def change(self, x: Tensor, reward: Tensor, t: float, interval: Interval) -> Float64[Tensor, "B K"]:
        """Return `rho(x, interval.s) - rho(x, interval.t)` at fixed x, (B, K).

        Args:
            x: the samples.
            reward: the reward at x and time t.
            t: that time.
            interval: the step.
        """
        old, new = value_at(self.reward_scale, interval.t), value_at(self.reward_scale, interval.s)
        if not self.time_dependent:
            return (new - old) * reward.to(torch.float64)
        first = reward if t == interval.t else _shaped(self.reward(x, interval.t), x)
        second = _shaped(self.reward(x, interval.s), x)
        return (new * second.detach().to(torch.float64)) - old * first.detach().to(torch.float64)

    def reward_and_gradient(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Return the reward at x, (B, K), and the gradient of `rho(x, t)`, of the shape of x."""
        factor = value_at(self.reward_scale, t)
        if self.gradient is not None:
            gradient = self.gradient(*self._arguments(x, t))
            if gradient.shape != x.shape:
                raise ValueError(
                    f"expected a gradient of the samples' shape {tuple(x.shape)}, got {tuple(gradient.shape)}; return "
                    "one number for each coordinate."
                )
            return _shaped(self.reward(*self._arguments(x, t)), x).detach(), factor * gradient
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            reward = _shaped(self.reward(*self._arguments(leaf, t)), x)
            if not reward.requires_grad:
                raise ValueError(
                    "expected a reward that torch can differentiate, got one that has no gradient; pass gradient=..., "
                    "or Target.tilted(..., gradient=False) for a black box."
                )
            (gradient,) = torch.autograd.grad(reward.sum(), leaf)
        return reward.detach(), factor * gradient

    def _arguments(self, x: Tensor, t: float) -> tuple[Any, ...]:
        return (x, t) if self.time_dependent else (x,)


@dataclass(frozen=True)
class BlackBoxTilt:
    """A reward without a gradient: FK-steering potentials of the denoised prediction, closed by the sample's reward.

    The proposal does not use it. The weight is exact for `exp(reward_scale(0) * reward(x_0))`, however wrong the
    predictions are (arXiv 2501.06848).

    Attributes:
        reward: from x (B, K, *event) to (B, K).
        reward_scale: a number, or a function of t, at least 0; its value at the last time is that of the target.
        potential: "difference", "max", "sum", "terminal", or a `Potential`.
        reward_input: "denoised" scores `E[x_0 | x_t]` by the combined score, "sample" scores x_t itself.
    """

    reward: Callable[[Tensor], Tensor]
    reward_scale: Exponent = 1.0
    potential: Potential | str = field(default_factory=Difference)
    reward_input: Literal["denoised", "sample"] = "denoised"

    def __post_init__(self) -> None:
        _check_callable("reward", self.reward)
        check_exponent("reward_scale", self.reward_scale)
        check_choice("reward_input", self.reward_input, ("denoised", "sample"))
        object.__setattr__(self, "potential", get_potential(self.potential))

    def score(self, x: Tensor) -> Tensor:
        """Return the reward, (B, K)."""
        with torch.no_grad():
            return _shaped(self.reward(x), x)

    def scale_at(self, t: float) -> float:
        """Return the reward scale at time t."""
        return value_at(self.reward_scale, t)


def _shaped(reward: Any, x: Tensor) -> Tensor:
    if not isinstance(reward, Tensor) or reward.shape != x.shape[:2]:
        found = tuple(reward.shape) if isinstance(reward, Tensor) else type(reward).__name__
        raise ValueError(
            f"expected a reward of shape {tuple(x.shape[:2])}, got {found} for samples {tuple(x.shape)}; return one "
            "number a particle."
        )
    return reward


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"expected a function of the samples, got {name}={value!r}; pass a callable.")
