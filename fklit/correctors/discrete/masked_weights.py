"""Log weights of a step of masked diffusion, and the exit-rate weight that they tend to."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def masked_weight(
    masked: Tensor, log_normalizer: Float[Tensor, "B K L"], *, total: float, alpha_from: float, alpha_to: float
) -> tuple[Float64[Tensor, "B K"], Float64[Tensor, "B K L"]]:
    """Return the log weight of a step and the probability with which each masked site is unmasked.

    Args:
        masked: (B, K, L) bool.
        log_normalizer: `log sum_v prod_i p_i(v | x)^beta_i` at each site.
        total: B, positive.
        alpha_from: alpha at the step's start.
        alpha_to: alpha at its end, larger.
    """
    # A masked site: every expert keeps the mask with probability `stay`, or unmasks to v.
    stay = (1 - alpha_to) / (1 - alpha_from)
    log_stay = total * math.log(stay) if stay > 0 else -math.inf
    # The forward kernel masks a site again with probability 1 - alpha_from / alpha_to.
    log_go = total * math.log((alpha_to - alpha_from) / (1 - alpha_from)) + (1 - total) * math.log1p(
        -alpha_from / alpha_to
    )
    go = log_go + log_normalizer.to(torch.float64)
    site = torch.logaddexp(go, torch.full_like(go, log_stay))
    weight = torch.where(masked, site, 0.0).sum(dim=-1)
    if total != 1.0 and alpha_from > 0:
        # A site that is not masked contributes only by the forward kernel to the power 1 - B.
        kept = (~masked).sum(dim=-1, dtype=torch.float64)
        weight = weight + (1 - total) * math.log(alpha_from / alpha_to) * kept
    return weight, (go - site).exp()


def masked_exit_weight(
    masked: Tensor, log_normalizer: Float[Tensor, "B K L"], *, total: float, alpha: float
) -> Float64[Tensor, "B K"]:
    """Return the exit-rate weight of `ctmc` for masked states, per unit of `log alpha` gained.

    `(B - 1) unmasked + sum over masked of (r^B Z - B r)` with `r = alpha / (1 - alpha)`: what `masked_weight` tends to
    as steps shrink.
    """
    ratio = alpha / (1 - alpha)
    site = ratio**total * log_normalizer.to(torch.float64).exp() - total * ratio
    return torch.where(masked, site, 0.0).sum(dim=-1) + (total - 1) * (~masked).sum(dim=-1, dtype=torch.float64)
