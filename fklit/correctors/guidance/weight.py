"""What one step of a guided pipeline adds to the log weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.targets.dispersion import subtract_dispersion, weighted_sum
from fklit.pipelines.noise_levels import StepLevels
from fklit.pipelines.transition import as_double

GuidanceIncrement = Literal["net_interval", "kernel"]
INCREMENTS: tuple[GuidanceIncrement, ...] = ("net_interval", "kernel")


def guidance_weight(
    predictions: Sequence[Tensor],
    exponents: Sequence[float],
    levels: StepLevels,
    increment: GuidanceIncrement = "net_interval",
) -> Float64[Tensor, " K"]:
    """Return the log weight of a step for the target `prod_i q_i^beta_i` with exponents that sum to 1.

    In `y = x / a` with the level `l = sigma / a`, the rate of proposition D.5 of arXiv 2503.02819 is, over the net
    interval from `l` to `l'`, `-(l^2 - l'^2) / (2 l^4) * sum_i beta_i |D_i - D|^2`, with the denoised predictions `D_i`
    and `D = sum_i beta_i D_i`; for guidance `beta (beta - 1) (l^2 - l'^2) / (2 l^4) |D_c - D_u|^2`. It is the same for
    every parameterization of the same levels. "kernel" is the log normalizer of the product of the experts' reverse
    kernels with the variance of the *forward* kernel, `(a' / a)^2` times as much; both agree as steps become small.
    With the variance that DDIM, DDPM and Euler ancestral draw with, the weight would be worse than none.

    Args:
        predictions: `D_i`, each (K, *event), of any float dtype.
        exponents: `beta_i`, of sum 1.
        levels: before and after the step.
        increment: "net_interval" or "kernel".

    Returns:
        Log weights (K,), float64.
    """
    # As in `Rate` and `KernelWeight`, but with denoised predictions, which are finite where the signal is gone and
    # scores in units of y are not.
    experts = [as_double(prediction).unsqueeze(0) for prediction in predictions]
    zero = torch.zeros(experts[0].shape[:2], dtype=torch.float64, device=experts[0].device)
    total = subtract_dispersion(zero, experts, exponents, weighted_sum(experts, exponents)).squeeze(0)
    return 0.5 * step_factor(levels, increment) * total


def stepwise_kl(predictions: Sequence[Tensor], levels: StepLevels) -> Float64[Tensor, " K"]:
    """Return what the interval between two noise levels adds to `KL(p(x | prompt) || p(x))`, in nats.

    The divergence of two laws is the integral over the noise of how far their denoised predictions part (Verdu 2010,
    "Mismatched estimation and relative entropy"; Guo, Shamai & Verdu 2005 for the mutual information):
    `KL(p(x | prompt) || p(x)) = 1/2 int E |D_c - D_u|^2 d(1 / l^2)`, over samples of the conditional law, with
    `l = sigma / a`. A step adds `(l^2 - l'^2) / (2 l^4) |D_c - D_u|^2`. Averaged over prompts the sum is the mutual
    information of prompts and samples: at most the entropy of the prompts. What a learned model has beyond that is the
    error of its predictions.

    Args:
        predictions: the unconditional denoised prediction and those of the prompt's parts, each (K, *event); parts add.
        levels: before and after the step.

    Returns:
        Nats (K,), float64.
    """
    unconditional = as_double(predictions[0])
    apart = [(as_double(part) - unconditional).flatten(1).square().sum(dim=1) for part in predictions[1:]]
    return 0.5 * step_factor(levels, "net_interval") * torch.stack(apart).sum(dim=0)


def step_factor(levels: StepLevels, increment: GuidanceIncrement) -> float:
    """Return `(l^2 - l'^2) / l^4`, for "kernel" times `(a' / a)^2`; finite where the signal is gone (`a = 0`)."""
    ratio = levels.scale / levels.next_scale
    variance = max(levels.sigma**2 - (ratio * levels.next_sigma) ** 2, 0.0)  # of the forward kernel
    scale = levels.next_scale if increment == "kernel" else levels.scale
    return variance * scale**2 / levels.sigma**4
