r"""Curves of `log E[exp(scale r_0) | r_t = r]` for one step, fitted on the exponentiated values themselves.

`r_t` is the score of a prediction, `r_0` the reward of the finished sample that it became. For Gaussian pairs the
curve would be `scale * slope * r + scale^2 variance / 2`, but rewards are not Gaussian: that formula can be off by tens
of nats where the reward is bounded or has two modes. Hence no moments here: the mean of `exp(scale r_0)` is regressed.

Only differences within a prompt weigh anything: a constant that all particles of a prompt share cancels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp
from torch import Tensor
from torch.nn.functional import logsigmoid

Floats = npt.NDArray[np.float64]
_TINY = 1e-12  # nats below the bound: where a score is the bound itself


class Curve(Protocol):
    """`log q(r)` of one step, up to a constant."""

    @property
    def family(self) -> str:
        """Which family: "logistic" or "linear"."""
        ...

    def __call__(self, scores: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Return `log q` of scores; `-inf` of `-inf`."""
        ...


@dataclass(frozen=True)
class LinearCurve:
    """`log q = slope * r`: for rewards without a bound.

    Attributes:
        slope: at least 0; at most the reward scale if predictions are no more telling than the samples.
    """

    slope: float
    family = "linear"

    def __call__(self, scores: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Return `log q`."""
        return torch.where(scores == -torch.inf, scores, self.slope * scores)


@dataclass(frozen=True)
class LogisticCurve:
    """`log q = log sigmoid(intercept + slope * s)`, `s = log(p / (1 - p))`, `p = exp(r - bound)`: for bounded rewards.

    Where the reward is a log probability, `s` is its logit. `q` estimates `E[exp(scale (r_0 - bound)) | r_t = r]`,
    which lies between 0 and 1.

    Attributes:
        intercept: any number.
        slope: at least 0.
        bound: what no reward exceeds.
    """

    intercept: float
    slope: float
    bound: float
    family = "logistic"

    def __call__(self, scores: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Return `log q`, at most 0."""
        below = (self.bound - scores).clamp(min=_TINY)
        # log(p / (1 - p)) = -log(expm1(below)), without overflow
        logit = -(below + torch.log(-torch.expm1(-below)))
        found = logsigmoid(self.intercept + self.slope * torch.where(scores == -torch.inf, 0.0, logit))
        return torch.where(scores == -torch.inf, scores, found)


def fit_curve(scores: Floats, rewards: Floats, *, scale: float, bound: float | None) -> Curve:
    """Fit the curve of one step.

    Args:
        scores: `r_t`, (P, n) for n samples of P prompts; `-inf` is left out.
        rewards: `r_0`, (P, n); `-inf` counts as `exp(-inf) = 0`.
        scale: of the target.
        bound: what no reward exceeds, for a logistic curve; None for a linear one.
    """
    if bound is None:
        return LinearCurve(_multinomial_slope(scores, rewards, scale=scale))
    kept = np.isfinite(scores)
    below = np.maximum(bound - scores[kept], _TINY)
    logits = -(below + np.log(-np.expm1(-below)))
    targets = np.exp(scale * np.minimum(rewards[kept] - bound, 0.0))
    intercept, slope = _logistic(logits, targets)
    return LogisticCurve(intercept, slope, bound)


def _multinomial_slope(scores: Floats, rewards: Floats, *, scale: float) -> float:
    """The slope a that maximizes `sum_p sum_i w_pi log softmax_i(a r_pi)`, with w_p the target's weights in prompt p.

    It is the multinomial likelihood of "which sample of the prompt did the target draw", with as many draws as the
    prompt has effective samples, and a standard normal prior on the slope (of standardized scores). Prompts with high
    rewards count no more than others, and constants of a prompt drop out. With few samples a prompt the slope is
    somewhat too small, as weights that are normalized over few samples hide large values of `exp(scale r_0)`.
    """
    usable = np.isfinite(scores) & (np.isfinite(rewards).any(axis=1, keepdims=True))
    usable &= usable.sum(axis=1, keepdims=True) > 1
    rows = usable.any(axis=1)
    if not rows.any():
        return 0.0
    mask, tilted = usable[rows], np.where(usable[rows], scale * rewards[rows], -np.inf)
    living = np.isfinite(tilted).any(axis=1)
    mask, tilted = mask[living], tilted[living]
    values = np.where(mask, scores[rows][living], 0.0)
    spread = _within_std(values, mask)
    if spread == 0 or not len(values):
        return 0.0
    weights = np.exp(tilted - logsumexp(tilted, axis=1, keepdims=True))
    weights *= 1.0 / (weights**2).sum(axis=1, keepdims=True)  # as many draws as effective samples
    draws = weights.sum(axis=1, keepdims=True)
    centered = values / spread

    def loss(parameter: Floats) -> tuple[float, Floats]:
        logits = np.where(mask, parameter[0] * centered, -np.inf)
        log_shares = logits - logsumexp(logits, axis=1, keepdims=True)
        lost = -float((weights * np.where(mask, log_shares, 0.0)).sum())
        gap = ((draws * np.exp(log_shares) - weights) * centered).sum()
        return lost + 0.5 * float(parameter[0] ** 2), np.array([gap + parameter[0]])

    return max(0.0, float(_minimized(loss, np.zeros(1))[0])) / spread


def _logistic(features: Floats, targets: Floats) -> tuple[float, float]:
    """Intercept and slope of the logistic regression of targets in [0, 1], with a standard normal prior on the slope.

    The cross-entropy with soft targets is least at their conditional mean, so no labels are drawn.
    """
    mean = float(np.clip(targets.mean(), 1e-12, 1 - 1e-12)) if len(targets) else 0.5
    flat = float(np.log(mean) - np.log1p(-mean))
    spread, center = (float(features.std()), float(features.mean())) if len(features) else (0.0, 0.0)
    if spread == 0:
        return flat, 0.0
    standard = (features - center) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logits = parameters[0] + parameters[1] * standard
        lost = -float((targets * log_expit(logits) + (1 - targets) * log_expit(-logits)).sum())
        gap = expit(logits) - targets
        gradient = np.array([gap.sum(), (gap * standard).sum() + parameters[1]])
        return lost + 0.5 * float(parameters[1] ** 2), gradient

    intercept, slope = _minimized(loss, np.array([flat, 0.0]))
    if slope <= 0:  # noise: a higher score never speaks against a sample
        return flat, 0.0
    return float(intercept - slope * center / spread), float(slope / spread)


def _within_std(values: Floats, mask: npt.NDArray[np.bool_]) -> float:
    """Pooled standard deviation of values (P, n) within rows."""
    if not mask.any():
        return 0.0
    means = values.sum(axis=1, keepdims=True, where=mask) / mask.sum(axis=1, keepdims=True).clip(1)
    return float(np.sqrt((np.where(mask, values - means, 0.0) ** 2).sum() / mask.sum()))


def _minimized(loss: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    found: Floats = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return found
