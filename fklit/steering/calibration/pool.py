"""What a tilt does to the calibrated samples themselves: nats from the base, effective samples, and the scale for them.

The n samples of a prompt are draws of the base, so their self-normalized weights `w_i ~ exp(scale r_i)` estimate the
target: `KL(target || base) = sum_i w_i log(n w_i)`. n samples can show at most `log n` nats.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.steering.calibration.record import Calibration

_BISECTIONS = 60


def log_shares(values: Float64[Tensor, "P n"]) -> Float64[Tensor, "P n"]:
    """Log weights within each prompt, normalized; equal ones where all are `-inf`."""
    alive = torch.isfinite(values).any(dim=1, keepdim=True)
    return torch.log_softmax(torch.where(alive, values, 0.0), dim=1)


def nats(calibration: Calibration, reward_scale: float) -> float:
    """Mean over prompts of the KL divergence of the target from the base, in nats, as far as n samples show it.

    Args:
        calibration: whose samples are weighted.
        reward_scale: at least 0; infinity for the most that any scale can show.
    """
    scale = _highest_scale(calibration) if reward_scale == math.inf else reward_scale
    logs = log_shares(_tilted(calibration.rewards, scale))
    terms = torch.where(logs > -math.inf, logs.exp() * (logs + math.log(logs.shape[1])), 0.0)
    return float(terms.sum(dim=1).mean())


def effective_samples(values: Float64[Tensor, "P n"]) -> Float64[Tensor, " P"]:
    """`1 / sum_i w_i^2` of each prompt's weights `w_i ~ exp(values_i)`, between 1 and n."""
    return torch.exp(-torch.logsumexp(2 * log_shares(values), dim=1))


def mean_effective(calibration: Calibration, reward_scale: float) -> float:
    """Mean over prompts of the effective samples among n."""
    return float(effective_samples(_tilted(calibration.rewards, reward_scale)).mean())


def scale_for(
    calibration: Calibration, *, nats_from_base: float | None = None, effective: float | None = None
) -> float:
    """Return the reward scale that spends a budget: nats from the base, or effective samples of the n of a prompt.

    Args:
        calibration: whose samples are weighted.
        nats_from_base: above 0 and below what n samples can show, `log n`.
        effective: mean effective samples to keep, above 1 and below n.

    Raises:
        ValueError: not one budget, or one that the samples cannot show.
    """
    if (nats_from_base is None) == (effective is None):
        raise ValueError(
            f"expected one budget, got nats_from_base={nats_from_base} and effective={effective}; give one of them."
        )
    highest = _highest_scale(calibration)
    if nats_from_base is not None:
        limit = nats(calibration, highest)
        if not 0 < nats_from_base < limit:
            raise ValueError(
                f"expected nats_from_base between 0 and {limit:.3g}, as far as {calibration.num_samples} samples a "
                f"prompt show it, got {nats_from_base:g}; lower it, or calibrate with more samples."
            )
        return _bisect(lambda scale: nats(calibration, scale) >= nats_from_base, highest)
    assert effective is not None
    limit = mean_effective(calibration, highest)
    if not limit < effective < calibration.num_samples:
        raise ValueError(
            f"expected effective between {limit:.3g} and {calibration.num_samples}, got {effective:g}; give another, "
            "or calibrate with more samples."
        )
    return _bisect(lambda scale: mean_effective(calibration, scale) <= effective, highest)


def reward_std(calibration: Calibration) -> float:
    """Standard deviation of the finite rewards within a prompt, pooled over prompts; 0 if all are alike."""
    square, degrees = 0.0, 0
    for row in calibration.rewards:
        kept = row[torch.isfinite(row)]
        if len(kept) > 1:
            square += float((kept - kept.mean()).square().sum())
            degrees += len(kept) - 1
    return math.sqrt(square / degrees) if degrees else 0.0


def _highest_scale(calibration: Calibration) -> float:
    """A scale at which each prompt's best sample has all the weight, but for ties."""
    gaps = []
    for row in calibration.rewards:
        values = row[torch.isfinite(row)].unique()
        if len(values) > 1:
            gaps.append(float(values[-1] - values[-2]))
    if not gaps:
        raise ValueError(
            "expected rewards that differ among the samples of a prompt, got equal ones; calibrate with other prompts."
        )
    return 50.0 / min(gaps)


def _bisect(enough: Callable[[float], bool], highest: float) -> float:
    low, high = 0.0, highest
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _tilted(rewards: Tensor, reward_scale: float) -> Tensor:
    return torch.zeros_like(rewards) if reward_scale == 0 else reward_scale * rewards
