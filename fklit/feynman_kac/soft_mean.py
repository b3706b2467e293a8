"""The soft mean of the rewards of several draws of a particle, which estimates the value of its state."""

import torch
from jaxtyping import Float64
from torch import Tensor


def soft_mean(rewards: Float64[Tensor, "B K N"], scale: float) -> Float64[Tensor, "B K"]:
    """`(1 / scale) log mean_n exp(scale r_n)`, which estimates the value of a state; the mean at scale 0.

    Its exponential is unbiased for `E[exp(scale r(x_0)) | x_t]` (Singhal et al. 2025, section 3.2, for any scale) where
    the draws are of that law. Of one draw it is the reward itself, bit for bit.

    Args:
        rewards: Of N draws; NaN makes the value NaN, as does `+inf` (at scale 0 `+inf`); a draw of `-inf` counts as
            `exp(-inf) = 0`, and makes the mean at scale 0 `-inf`.
        scale: At least 0.
    """
    if scale == 0:
        return rewards.mean(dim=2)
    invalid = (rewards.isnan() | (rewards == torch.inf)).any(dim=2)
    highest = rewards.amax(dim=2)
    peak = highest.masked_fill(~highest.isfinite(), 0.0)  # so that differences of infinities do not arise
    # exp(y) - 1 and log(1 + y) keep the digits of a small scale, which divides in the end.
    mean = torch.expm1(scale * (rewards - peak.unsqueeze(2))).mean(dim=2)
    return (peak + torch.log1p(mean) / scale).masked_fill(invalid, torch.nan)
