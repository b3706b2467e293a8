"""Words of the texts of each prompt."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.text_store import Samples, TextStore
from fklit.metrics.texts import continuation, words


@dataclass(frozen=True)
class PromptTexts:
    """One row: a prompt and its texts, as lists of words."""

    prompt: str
    texts: list[list[str]]


class TextTable(TextStore):
    """Keeps the words of all texts, so that subclasses measure them together; see `Distinct`.

    Args:
        samples: Which texts of a prompt: the "chosen" one, or "all" K.
        with_prompt: Whether a text that begins with its prompt keeps it. Texts of one prompt would share it.
        on_nan: "error" refuses a text without words by name; "omit" leaves it out, and the share of what was left out
            is reported as `omitted`.

    Raises:
        ValueError: An argument is none of those allowed.
    """

    def __init__(self, *, samples: Samples = "chosen", with_prompt: bool = False, on_nan: OnNan = "error") -> None:
        super().__init__(samples=samples)
        check_choice("on_nan", on_nan, ("error", "omit"))
        self.with_prompt = with_prompt
        self.on_nan: OnNan = on_nan

    def kept(self, texts: list[str], prompt: str) -> list[str]:
        """The texts, without their prompt if that is not asked for.

        Raises:
            ValueError: One has no words and such are not omitted.
        """
        bare = texts if self.with_prompt else [continuation(text, prompt) for text in texts]
        empty = next((text for text, rest in zip(texts, bare, strict=True) if not words(rest)), None)
        if empty is not None and self.on_nan == "error":
            raise ValueError(
                f"{type(self).__name__} expected words in every text, got {empty!r} for {prompt!r}; fix what "
                "writes it, or leave such texts out by on_nan='omit'."
            )
        return bare

    def rows(self) -> tuple[list[PromptTexts], float]:
        """The texts with words of every prompt, in order of their indices, and the share of texts without."""
        found, omitted, total = [], 0, 0
        for prompt, texts in self.stored():
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
