"""The contrastive loss of CLIP with any number of true pairs."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def contrastive_loss(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "p d"], truth: Bool[Tensor, "n p"], *, scale: Tensor
) -> Tensor:
    """Symmetric cross-entropy of Radford et al. 2021 (arXiv:2103.00020, figure 3) with any number of true pairs.

    Of several positives each counts the same (Khosla et al. 2020, arXiv:2004.11362, equation 2). An image
    that no caption fits takes part as a negative only.

    Args:
        images: Unit vectors.
        texts: Unit vectors.
        truth: Which pairs fit.
        scale: Inverse temperature.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round logits of 30 to eighths
        logits = scale * images.float() @ texts.float().T
    weights = truth.to(logits.dtype)
    loss = logits.new_zeros(())
    for axis in (0, 1):
        partners = weights.sum(axis)
        each = -(weights * F.log_softmax(logits, axis)).sum(axis) / partners.clamp(min=1)
        loss = loss + each.sum() / (partners > 0).sum().clamp(min=1) / 2
    return loss
