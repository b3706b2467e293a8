"""Transition probabilities of ancestral sampling of masked diffusion, exact for each position."""

import math

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


def transition_log_probs(
    log_probs: Float64[Tensor, "... v"], tokens: Int64[Tensor, "..."], *, mask: int, unmask: float
) -> Float64[Tensor, "... v"]:
    """Log probabilities of each position's token after a step (Sahoo et al. 2024, eq. 7).

    A masked position stays masked with probability `1 - unmask`, or takes token v with `unmask` times its predicted
    probability; the others stay. A text's transition probability is the product over its positions.

    Args:
        log_probs: Predictions, normalized, without mass on the mask.
        tokens: Before the step.
        mask: Id of the mask.
        unmask: Probability that a masked position is unmasked, in [0, 1].
    """
    if not 0 <= unmask <= 1:
        raise ValueError(f"expected unmask in [0, 1], got {unmask}; give a probability.")
    go = log_probs + (math.log(unmask) if unmask > 0 else -math.inf)
    go[..., mask] = math.log1p(-unmask) if unmask < 1 else -math.inf
    stay = torch.full_like(log_probs, -torch.inf).scatter(-1, tokens.unsqueeze(-1), 0.0)
    return torch.where((tokens == mask).unsqueeze(-1), go, stay)


def places_to_unmask(
    tokens: Int64[Tensor, "B K L"], points: Float64[Tensor, "B K L"], *, mask: int, unmask: float
) -> tuple[Bool[Tensor, "B K L"], Float64[Tensor, "B K L"]]:
    """Which masked positions a step unmasks, and a point in [0, 1) left for the token of each.

    They are decided before anything is predicted, so that predictions are needed at these places only.

    Args:
        tokens: Before the step.
        points: Uniform in [0, 1).
        mask: Id of the mask.
        unmask: Probability that a masked position is unmasked.
    """
    # A uniform below `unmask`, stretched, is uniform again.
    return (tokens == mask) & (points < unmask), points / max(unmask, 1e-300)
