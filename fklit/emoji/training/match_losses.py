"""Losses that teach a reward to see objects, places and whether a caption fits a picture."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def match_loss(
    logits: Float[Tensor, "g p c"], truth: Bool[Tensor, "g p c"], known: Bool[Tensor, "g p c"]
) -> tuple[Tensor, Tensor]:
    """Whether pictures match captions, one pair at a time and among the pictures of a caption.

    Args:
        logits: Log odds of a match of p pictures with c captions, in g groups.
        truth: Whether they match.
        known: Whether `truth` says so; other pairs count nothing.

    Returns:
        The mean cross-entropy over pairs, matches and others with equal weight in all; and the mean of
        `-log P(a matching picture | caption)` under the softmax over a group's pictures.
    """
    each = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    positive, negative = each[truth & known], each[~truth & known]
    pairwise = 0.5 * (positive.sum() / max(len(positive), 1) + negative.sum() / max(len(negative), 1))
    right = logits.masked_fill(~(truth & known), -torch.inf).logsumexp(1)
    share = (logits.masked_fill(~known, -torch.inf).logsumexp(1) - right)[(truth & known).any(1)]
    return pairwise, share.sum() / max(len(share), 1)


def patch_loss(logits: Float[Tensor, "n k h w"], labels: Int[Tensor, "n h w"], *, nothing: int) -> Tensor:
    """Cross-entropy of what each patch shows; the background, which is most of a picture, counts a fifth.

    Args:
        logits: Of k labels.
        labels: The right ones; -100 where none is known, which counts nothing.
        nothing: The label of the background.
    """
    weight = torch.ones(logits.shape[1], device=logits.device, dtype=logits.dtype)
    weight[nothing] = 0.2
    total = torch.where(labels >= 0, weight[labels.clamp(min=0)], 0.0).sum()
    # the mean over what is known; where nothing is, the sum is zero
    return F.cross_entropy(logits, labels, weight=weight, reduction="sum") / total.masked_fill(total == 0, 1.0)


def grounding_loss(predicted: Float[Tensor, "n 2 2"], centers: Float[Tensor, "n 2 2"]) -> Tensor:
    """Distance between where the words of a caption place their objects and where these are.

    The L1 part of the grounding loss of X-VLM (Zeng et al. 2022, arXiv:2111.08276, equation 3), for centers.

    Args:
        predicted: Centers (x, y) in [0, 1] of the first two things of n captions.
        centers: The true ones; NaN where a picture does not say, which counts nothing.
    """
    known = ~centers.isnan()
    off = torch.where(known, predicted - centers.nan_to_num(), 0.0).abs()
    return off.sum() / known.sum().clamp(min=1)
