"""The substitution parameterization of MDLM (Sahoo et al. 2024, arXiv:2406.07524, section 3.2.3)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def substitute(
    logits: Float[Tensor, "... v"], tokens: Int64[Tensor, "..."], *, mask: int, never: tuple[int, ...] = ()
) -> Float[Tensor, "... v"]:
    """Log probabilities of the clean tokens.

    Zero masking probability: the mask itself has none. Carry-over unmasking: a token that is not masked stays.

    Args:
        logits: Of the network.
        tokens: What it read; ids below v.
        mask: Id of the mask.
        never: Ids of other tokens that are not to be predicted, such as padding.

    Returns:
        Normalized over the last axis, in the type of `logits`.
    """
    excluded = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    excluded[[mask, *never]] = True
    predicted = torch.log_softmax(logits.masked_fill(excluded, -torch.inf), dim=-1)
    carried = torch.full_like(predicted, -torch.inf).scatter(-1, tokens.unsqueeze(-1), 0.0)
    return torch.where((tokens == mask).unsqueeze(-1), predicted, carried)
