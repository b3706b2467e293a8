"""What rewards of texts share: which texts have no score, and what then."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.base import Metadata, Reward, RewardError

OnEmpty = Literal["error", "nan"]


class TextReward(Reward):
    """Scores texts; those without anything to score are refused by name or are NaN, as `empty` says.

    Subclasses write `score_texts`, which gets the other texts, and may say by `is_empty` which these are.

    Args:
        empty: What a text without anything to score is, such as one of spaces only: "error" refuses it by name, "nan"
            scores it NaN, which the `on_nan` of the method then drops or refuses.
        max_batch: Most texts at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    accepts = "text"
    needs_prompts = False
    uses_metadata = True

    def __init__(self, *, empty: OnEmpty = "error", max_batch: int | None = None, pad: bool = False) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        check_choice("empty", empty, ("error", "nan"))
        self.empty: OnEmpty = empty

    @abstractmethod
    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Scores (n,) of n texts with something to score, float32 or float64; NaN for one that could not be scored."""

    def is_empty(self, text: str) -> bool:
        """Whether there is nothing to score."""
        return not text.strip()

    def score(self, samples: Sequence[str], prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """Scores (n,) of texts.

        Raises:
            RewardError: A text has nothing to score, and `empty` is "error".
        """
        known = [{"prompt": prompt} for prompt in prompts] if metadata is None else list(metadata)
        filled = [row for row, text in enumerate(samples) if not self.is_empty(text)]
        if len(filled) < len(samples):
            self.refuse_empty(next(text for text in samples if self.is_empty(text)), "a text with words")
        precision = torch.float32 if self.device.type == "mps" else torch.float64  # which has no other
        scores = torch.full((len(samples),), math.nan, dtype=precision, device=self.device)
        if filled:
            found = self.score_texts(
                [samples[row] for row in filled], [prompts[row] for row in filled], [known[row] for row in filled]
            )
            scores[filled] = found.to(scores)
        return scores

    def refuse_empty(self, text: str, expected: str) -> None:
        """Refuse a text without anything to score, if `empty` says so.

        Args:
            text: The text.
            expected: What it should be.

        Raises:
            RewardError: `empty` is "error".
        """
        if self.empty == "error":
            raise RewardError(
                f"{self.display_name} expected {expected}, got {text!r}; set empty='nan' to leave such texts to the "
                "method's on_nan."
            )
