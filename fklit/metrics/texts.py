"""Texts as metrics see them: out of a run's result, with or without the prompt, and as words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fklit.metrics.samples import SampleBatch
from fklit.rewards.continuation import split_prompt

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # noqa: RUF001


def words(text: str) -> list[str]:
    """Words and marks of a text, in its case.

    A word is a run of letters, digits and underscores, with apostrophes inside; any other sign that is no space stands
    alone.

    Args:
        text: Any text.
    """
    return _WORD.findall(text)


def texts_of(samples: Tensor, batch: SampleBatch) -> list[list[str]]:
    """All texts of B prompts, B lists of K.

    Args:
        samples: Their tokens (B, K, ...), which are not read.
        batch: With the result of a run over text.

    Raises:
        ValueError: The samples are no texts.
    """
    if not batch.prompts:
        return []
    items = getattr(batch.result, "items", None)
    is_text = isinstance(items, list) and all(isinstance(text, str) for row in items for text in row)
    if not is_text or len(items) != len(batch.prompts):  # type: ignore[arg-type]
        raise ValueError(
            f"expected texts of {len(batch.prompts)} prompt(s), got samples {tuple(samples.shape)} without; give the "
            "result of a run over text, or `text_batch(texts)`."
        )
    found: list[list[str]] = items  # type: ignore[assignment]
    return found


def chosen_texts(samples: Tensor, batch: SampleBatch) -> list[str]:
    """The chosen text of each prompt, as `texts_of`."""
    return [row[slot] for row, slot in zip(texts_of(samples, batch), batch.chosen.tolist(), strict=True)]


def continuation(text: str, prompt: str) -> str:
    """What of a text follows its prompt; the whole text if it does not begin with the prompt."""
    whole, end = split_prompt(text, prompt)
    return whole[end:].strip()


@dataclass(frozen=True)
class _Texts:
    items: list[list[str]]


def text_batch(
    texts: Sequence[str] | Sequence[Sequence[str]],
    prompts: Sequence[str] | None = None,
    *,
    chosen: Sequence[int] | None = None,
    first_index: int = 0,
) -> tuple[Tensor, SampleBatch]:
    """What a metric of texts takes, from plain lists: `metric.update(*text_batch(texts, prompts))`.

    Args:
        texts: One text for each of B prompts, or K of them.
        prompts: B prompts; empty ones by default.
        chosen: Slot from 0 to K - 1 of the text of each prompt that counts as its result; the first by default.
        first_index: Number of the first prompt: those that were added before have others.

    Returns:
        Samples (B, K, 1), which stand for the texts, and the batch.

    Raises:
        ValueError: Prompts differ in how many texts they have.
    """
    items = [[row] if isinstance(row, str) else list(row) for row in texts]
    counts = {len(row) for row in items}
    if len(counts) > 1:
        raise ValueError(f"expected as many texts of each prompt, got {sorted(counts)}; give K of each.")
    names = [""] * len(items) if prompts is None else list(prompts)
    batch = SampleBatch(
        prompts=names,
        metadata=[{"prompt": prompt} for prompt in names],
        chosen=torch.tensor([0] * len(items) if chosen is None else list(chosen), dtype=torch.int64),
        indices=torch.arange(first_index, first_index + len(items)),
        result=_Texts(items),
    )
    return torch.zeros(len(items), max(counts, default=0), 1, dtype=torch.int64), batch
