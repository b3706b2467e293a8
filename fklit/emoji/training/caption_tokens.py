"""Captions as tokens, with the places of the words that stand for their things."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.emoji.prompts import PLURALS, ScenePrompt


def caption_tokens(tokenizer: Any, captions: Sequence[ScenePrompt], length: int) -> tuple[Tensor, Tensor]:
    """Tokens of captions, and where the nouns of their first two things are.

    Args:
        tokenizer: A `transformers` tokenizer of whole words that begins and ends a text with a token of its own.
        captions: P captions.
        length: Tokens to fill up to.

    Returns:
        Tokens (P, length), int64, and places (P, 2), int64, 0 for a thing that the caption does not have.

    Raises:
        ValueError: A caption is longer than `length`, so that its nouns would be cut off.
    """
    texts = [caption.text for caption in captions]
    longest = max(texts, key=lambda text: len(text.split()))
    needed = len(longest.split()) + 2  # with the start and the end
    if needed > length:
        raise ValueError(
            f"expected max_length of at least {needed}, which {longest!r} takes, got {length}; give a larger one."
        )
    encoded = tokenizer(texts, padding="max_length", max_length=length).input_ids
    places = torch.zeros(len(captions), 2, dtype=torch.int64)
    for row, caption in enumerate(captions):
        words = caption.text.split()
        start = 0
        for column, wanted in enumerate(caption.wanted[:2]):
            noun = wanted.noun if wanted.count == 1 else PLURALS.get(wanted.noun, wanted.noun + "s")
            start = words.index(noun, start)
            places[row, column] = start + 1  # behind the start
            start += 1
    return torch.tensor(encoded), places
