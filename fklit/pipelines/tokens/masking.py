"""Exact transition probabilities of block refinement with masks: what is drawn, committed and edited in a step."""

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.pipelines.tokens.commits import commit_probabilities
from fklit.pipelines.tokens.drawn import DrawnLaw


def masking_probs(
    law: DrawnLaw,
    sample: Int64[Tensor, "n L"],
    *,
    mask: int,
    given: Bool[Tensor, " L"],
    moves: Bool[Tensor, " n"],
    number: int,
    threshold: float,
    editing_threshold: float | None,
) -> Float64[Tensor, "n L V"]:
    """Return the probabilities of each position's token after a step.

    Args:
        law: Of the tokens drawn.
        sample: Before the step.
        mask: Id of the mask.
        given: Positions of the prompt, which are not edited.
        moves: Rows that the step may change.
        number: Of masks that are committed at least, if there are as many.
        threshold: Confidence above which a token is committed in any case.
        editing_threshold: Confidence above which a token is replaced; None or at most 0 for never.
    """
    result = []
    for row, tokens in enumerate(sample):
        probs, confidence, masked = law.probs[row], law.confidence[row], tokens == mask
        here = torch.zeros_like(probs).scatter(1, tokens[:, None], 1.0)
        change = commit_probabilities(
            probs, confidence, masked, number=min(number, int(masked.sum())), threshold=threshold
        )
        if editing_threshold is not None and editing_threshold > 0:
            edited = (confidence > editing_threshold) & (here == 0) & ~(masked | given)[:, None]
            change = change + torch.where(edited, probs, 0.0)
        change = change * moves[row]
        result.append(change + (1 - change.sum(dim=1, keepdim=True)) * here)
    return torch.stack(result)
