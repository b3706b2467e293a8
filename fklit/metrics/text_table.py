"""Texts of each prompt, kept by its index, so that one that comes twice counts once."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.metrics.prompt_mean import joined
from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.sample_metric import SampleMetric
from fklit.metrics.samples import SampleBatch
from fklit.metrics.texts import continuation, texts_of, words

Samples = Literal["chosen", "all"]


@dataclass(frozen=True)
class PromptTexts:
    """One row: a prompt and its texts, as lists of words."""

    prompt: str
    texts: list[list[str]]


class TextTable(SampleMetric):
    """Keeps the words of all texts, so that subclasses measure them together; see `Distinct`.

    Args:
        samples: Which texts of a prompt: the "chosen" one, or "all" K.
        with_prompt: Whether a text that begins with its prompt keeps it. Texts of one prompt would share it.
        on_nan: "error" refuses a text without words by name; "omit" leaves it out, and the share of what was left out
            is reported as `omitted`.

    Raises:
        ValueError: An argument is none of those allowed.
    """

    needs_prompts = True
    accepts: ClassVar[str] = "text"
    content: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, *, samples: Samples = "chosen", with_prompt: bool = False, on_nan: OnNan = "error") -> None:
        super().__init__()
        check_choice("samples", samples, ("chosen", "all"))
        check_choice("on_nan", on_nan, ("error", "omit"))
        self.samples: Samples = samples
        self.with_prompt = with_prompt
        self.on_nan: OnNan = on_nan
        # What processes exchange are tensors: UTF-8 bytes of prompts and texts one after the other, and for each the
        # prompt's index, its number (0 is the prompt itself) and how many bytes it has.
        self.add_state("content", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def update(self, samples: Tensor, batch: SampleBatch, measured: Any = None) -> None:
        """Adds the texts of B prompts.

        Args:
            samples: Their tokens.
            batch: With the result of a run over text.
            measured: Unused; `PromptMetric` has it.

        Raises:
            ValueError: The samples are no texts, or one has no words and such are not omitted.
        """
        content, lengths = bytearray(), []
        for row, texts in enumerate(texts_of(samples, batch)):
            prompt, index = batch.prompts[row], int(batch.indices[row])
            kept = texts if self.samples == "all" else [texts[int(batch.chosen[row])]]
            bare = kept if self.with_prompt else [continuation(text, prompt) for text in kept]
            empty = next((text for text, rest in zip(kept, bare, strict=True) if not words(rest)), None)
            if empty is not None and self.on_nan == "error":
                raise ValueError(
                    f"{type(self).__name__} expected words in every text, got {empty!r} for {prompt!r}; fix what "
                    "writes it, or leave such texts out by on_nan='omit'."
                )
            for number, text in enumerate([prompt, *bare]):
                encoded = text.encode("utf-8", "surrogatepass")
                content += encoded
                lengths.append([index, number, len(encoded)])
        device = self.device
        self.content.append(torch.tensor(list(content), dtype=torch.uint8, device=device))
        self.lengths.append(torch.tensor(lengths, dtype=torch.int64, device=device).reshape(-1, 3))

    def rows(self) -> tuple[list[PromptTexts], float]:
        """The texts with words of every prompt, in order of their indices, and the share of texts without."""
        content, place = bytes(joined(self.content).to(torch.uint8).cpu().tolist()), 0
        by_index: dict[int, dict[int, str]] = {}
        for index, number, length in joined(self.lengths).reshape(-1, 3).long().tolist():
            text = content[place : place + length].decode("utf-8", "surrogatepass")
            place += length
            # Texts of a prompt that comes twice take the place of those from before.
            by_index.setdefault(index, {})[number] = text
        found, omitted, total = [], 0, 0
        for index in sorted(by_index):
            prompt, *texts = (by_index[index][number] for number in sorted(by_index[index]))
            split = [words(text) for text in texts]
            omitted, total = omitted + sum(not text for text in split), total + len(split)
            found.append(PromptTexts(prompt, [text for text in split if text]))
        return found, omitted / total if total else float("nan")

    def groups(self, rows: list[PromptTexts]) -> dict[str, list[list[str]]]:
        """The texts of each different prompt: rows of one prompt are continuations of the same beginning."""
        found: dict[str, list[list[str]]] = {}
        for row in rows:
            found.setdefault(row.prompt, []).extend(row.texts)
        return {prompt: texts for prompt, texts in found.items() if texts}

    def reported(self, values: dict[str, float], omitted: float) -> dict[str, Tensor]:
        """Numbers as float64 scalars, with the share that was left out if such are."""
        named = values | ({"omitted": omitted} if self.on_nan == "omit" else {})
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in named.items()}
