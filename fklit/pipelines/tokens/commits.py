"""The exact law of what a confidence-ordered step commits, position by position."""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor


def commit_probabilities(
    probs: Float64[Tensor, "L V"],
    confidence: Float[Tensor, "L V"],
    open_: Bool[Tensor, " L"],
    *,
    number: int,
    threshold: float,
) -> Float64[Tensor, "L V"]:
    """Return with what probability a step draws token v at position i and commits it.

    Every open position draws a token; those whose confidence is above the threshold are committed, and of the others
    the most confident ones until `number` are. So position i commits its token if fewer than `number` of the others are
    more confident: the others are independent, so their count is Poisson-binomial, here by its recursion. Equal
    confidences count as not larger (the schedulers order them by no documented rule).

    Args:
        probs: Law of the tokens drawn at each position.
        confidence: Of each token there.
        open_: Positions that may be committed.
        number: How many are committed at least, if there are as many.
        threshold: Confidence above which a token is committed in any case.
    """
    result = torch.zeros_like(probs)
    places = open_.nonzero().squeeze(1).tolist()
    ordered = {place: _tail(probs[place], confidence[place]) for place in places}
    for place in places:
        level = confidence[place]
        # count[v, m]: probability that m of the others are more confident than token v here; m >= number is left out.
        count = torch.zeros(len(level), max(number, 0), dtype=torch.float64, device=probs.device)
        count[:, :1] = 1.0
        for other in places:
            if other == place:
                continue
            edges, tail = ordered[other]
            more = tail[torch.searchsorted(edges, level, right=True)][:, None]
            moved = torch.nn.functional.pad(count[:, :-1], (1, 0)) if number > 1 else torch.zeros_like(count)
            count = count * (1 - more) + moved * more
        chosen = torch.where(level > threshold, 1.0, count.sum(dim=1))
        result[place] = probs[place] * chosen
    return result


def _tail(probs: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Confidences in order, and the mass of the tokens from each place on (0 behind the last)."""
    order = confidence.argsort()
    reverse = probs[order].flip(0).cumsum(0).flip(0)
    return confidence[order].contiguous(), torch.cat([reverse, reverse.new_zeros(1)])
