"""What each token of a text adds to it, for reports."""

from itertools import accumulate, pairwise
from typing import Any


def pieces(tokenizer: Any, tokens: list[int]) -> list[str]:
    """What each token adds to the text, spaces included; what has no letters of its own yet adds nothing.

    Args:
        tokenizer: Of transformers; special tokens are left out of texts.
        tokens: Of one text.
    """
    if not tokens:
        return []
    beginnings = [tokens[:count] for count in range(1, len(tokens) + 1)]
    read = tokenizer.batch_decode(beginnings, skip_special_tokens=True)
    # A beginning may end in half a character: only what agrees with the whole counts.
    ends = [_shared(beginning, read[-1]) for beginning in read[:-1]]
    edges = [0, *accumulate(ends, max), len(read[-1])]
    return [read[-1][first:last] for first, last in pairwise(edges)]


def _shared(one: str, other: str) -> int:
    """With how many equal characters two texts begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
