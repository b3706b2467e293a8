"""Captions as tokens, with the places of the words that stand for their things."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.emoji.prompts import PLURALS, ScenePrompt


def caption_tokens(tokenizer: Any, captions: Sequence[ScenePrompt], length: int) -> tuple[Tensor, Tensor]:
    """Tokens of captions, and where the nouns of their first two things are.

    Args:
        tokenizer: A `transformers` tokenizer of whole words that begins a text with one token of its own.
        captions: P captions.
        length: Tokens to fill up to.

    Returns:
        Tokens (P, length), int64, and places (P, 2), int64, 0 for a thing that the caption does not have.
    """
    texts = [caption.text for caption in captions]
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=length).input_ids
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
