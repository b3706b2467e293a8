"""Random text encodings in the place of text encoders, in the form of each pipeline's `encode_prompt`."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

TOKENS = 6


def encoding(texts: Any, *shape: int, repeats: int = 1) -> torch.Tensor:
    """A random encoding (N, *shape) of each text, equal for equal texts, rows of one text side by side."""
    rows = []
    for text in [texts] if isinstance(texts, str) else list(texts):
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        rows += [torch.randn(*shape, generator=torch.Generator().manual_seed(seed))] * repeats
    return torch.stack(rows)


@dataclass(frozen=True)
class Part:
    """One entry of what `encode_prompt` returns.

    Attributes:
        shape: of a row; ones or zeros of that shape where `fill` is given.
        negative: whether it is of the negative prompts (None is returned without guidance).
        fill: a constant in place of random numbers.
        shared: whether it has no axis of rows.
        dtype: of it.
        listed: whether it is a list of one tensor a row.
    """

    shape: tuple[int, ...]
    negative: bool = False
    fill: float | None = None
    shared: bool = False
    dtype: torch.dtype = torch.float32
    listed: bool = False


def embeds(width: int, *, negative: bool = False, listed: bool = False) -> Part:
    """Embeddings of `TOKENS` tokens."""
    return Part((TOKENS, width), negative, listed=listed)


def pooled(width: int, *, negative: bool = False) -> Part:
    """One vector a text."""
    return Part((width,), negative)


def mask(*, negative: bool = False, dtype: torch.dtype = torch.long) -> Part:
    """A mask in which every token counts."""
    return Part((TOKENS,), negative, fill=1.0, dtype=dtype)


def ids(axes: int, *, negative: bool = False, shared: bool = True) -> Part:
    """Positions of the tokens, all zero."""
    return Part((TOKENS, axes), negative, fill=0.0, shared=shared)


def encode_by(pipeline: Any, *parts: Part | None, alone: bool = False) -> Any:
    """Give a pipeline an `encode_prompt` that returns random encodings, and return it.

    Args:
        pipeline: its own method's signature says how the prompts are named.
        parts: what is returned, in order; None for None.
        alone: return the only part by itself, not in a tuple.
    """
    signature = inspect.signature(type(pipeline).encode_prompt)
    pipeline.encode_prompt = _encoder(signature, parts, alone)
    return pipeline


def _encoder(signature: inspect.Signature, parts: tuple[Part | None, ...], alone: bool) -> Callable[..., Any]:
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        prompt = given.get("prompt")
        if prompt is None:  # the negative prompts of some
            prompt = [""] * given.get("batch_size", 1)
        count = 1 if isinstance(prompt, str) else len(prompt)
        negative = given.get("negative_prompt") or ""
        negatives = [negative] * count if isinstance(negative, str) else list(negative)
        if len(negatives) == 1:
            negatives *= count
        repeats = next((given[name] for name in given if name.startswith("num_") and "_per_prompt" in name), 1) or 1
        guided = given.get("do_classifier_free_guidance", True)

        def entry(part: Part | None) -> Any:
            if part is None or (part.negative and not guided):
                return None
            texts = negatives if part.negative else prompt
            if part.fill is not None:
                shape = part.shape if part.shared else (count * repeats, *part.shape)
                return torch.full(shape, part.fill, dtype=part.dtype)
            rows = encoding(texts, *part.shape, repeats=repeats)
            return list(rows) if part.listed else rows

        found = tuple(entry(part) for part in parts)
        return found[0] if alone else found

    return encode_prompt
