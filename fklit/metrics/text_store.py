"""Texts of each prompt as tensors that processes exchange, kept by the prompt's index, so that one counts once."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.metrics.prompt_mean import joined
from fklit.metrics.sample_metric import SampleMetric
from fklit.metrics.samples import SampleBatch
from fklit.metrics.texts import texts_of

Samples = Literal["chosen", "all"]


class TextStore(SampleMetric):
    """Keeps all texts, so that subclasses measure them together.

    Args:
        samples: Which texts of a prompt: the "chosen" one, or "all" K.

    Raises:
        ValueError: `samples` is neither.
    """

    needs_prompts = True
    accepts: ClassVar[str] = "text"
    content: list[Tensor]
    lengths: list[Tensor]

    def __init__(self, *, samples: Samples) -> None:
        super().__init__()
        check_choice("samples", samples, ("chosen", "all"))
        self.samples: Samples = samples
        # What processes exchange are tensors: UTF-8 bytes of prompts and texts one after the other, and for each the
        # prompt's index, its number (0 is the prompt itself) and how many bytes it has.
        self.add_state("content", default=[], dist_reduce_fx="cat")
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def kept(self, texts: list[str], prompt: str) -> list[str]:
        """What of the texts of a prompt is measured: subclasses may cut or refuse."""
        return texts

    def update(self, samples: Tensor, batch: SampleBatch, measured: Any = None) -> None:
        """Adds the texts of B prompts.

        Args:
            samples: Their tokens.
            batch: With the result of a run over text.
            measured: Unused; `PromptMetric` has it.

        Raises:
            ValueError: The samples are no texts, or one is refused.
        """
        content, lengths = bytearray(), []
        for row, texts in enumerate(texts_of(samples, batch)):
            prompt, index = batch.prompts[row], int(batch.indices[row])
            some = texts if self.samples == "all" else [texts[int(batch.chosen[row])]]
            for number, text in enumerate([prompt, *self.kept(some, prompt)]):
                encoded = text.encode("utf-8", "surrogatepass")
                content += encoded
                lengths.append([index, number, len(encoded)])
        device = self.device
        self.content.append(torch.tensor(list(content), dtype=torch.uint8, device=device))
        self.lengths.append(torch.tensor(lengths, dtype=torch.int64, device=device).reshape(-1, 3))

    def stored(self) -> list[tuple[str, list[str]]]:
        """Every prompt with its texts, in order of their indices."""
        content, place = bytes(joined(self.content).to(torch.uint8).cpu().tolist()), 0
        by_index: dict[int, dict[int, str]] = {}
        for index, number, length in joined(self.lengths).reshape(-1, 3).long().tolist():
            text = content[place : place + length].decode("utf-8", "surrogatepass")
            place += length
            # Texts of a prompt that comes twice take the place of those from before.
            by_index.setdefault(index, {})[number] = text
        found = []
        for index in sorted(by_index):
            prompt, *texts = (by_index[index][number] for number in sorted(by_index[index]))
            found.append((prompt, texts))
        return found
