"""Sentiment by word lists that packages ship: VADER, which reads negation and emphasis, and AFINN, which counts."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.optional import import_optional
from fklit.rewards.text_reward import OnEmpty, TextReward

_FIX = "install the extra 'parts' (`pip install 'fklit[parts]'`)"


class VADERSentiment(TextReward):
    """Compound sentiment of English text by VADER, -1 (negative) to 1 (positive), without weights.

    Hutto and Gilbert 2014, by the package vaderSentiment (extra `parts`). A text of no word on its list scores 0. For
    negative sentiment weigh it by -1: `WeightedSum([VADERSentiment()], [-1.0])`. `AFINNSentiment` judges by another
    word list.

    Args:
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        max_batch: Most texts at once; None for no limit.
    """

    typical_range = (-1.0, 1.0)
    suggested_scale = 5.0

    def __init__(self, *, empty: OnEmpty = "error", max_batch: int | None = None) -> None:
        super().__init__(empty=empty, max_batch=max_batch)
        self._analyzer: Any = None

    def build(self) -> None:
        """Reads the word list.

        Raises:
            ImportError: vaderSentiment is not installed.
        """
        module = import_optional("vaderSentiment.vaderSentiment", owner="VADERSentiment", fix=_FIX)
        self._analyzer = module.SentimentIntensityAnalyzer()

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Compound scores (n,)."""
        return torch.tensor([self._analyzer.polarity_scores(text)["compound"] for text in texts], dtype=torch.float64)


class AFINNSentiment(TextReward):
    """Sentiment of English text by AFINN's word list, without weights: -5 (negative) to 5 (positive) for a word.

    Nielsen 2011, arXiv:1103.2903, by the package afinn (extra `parts`). A text of no word on the list scores 0.

    Args:
        output: "mean" over the words of a text, those that are on the list and those that are not, or their "sum".
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        max_batch: Most texts at once; None for no limit.
    """

    def __init__(
        self,
        *,
        output: Literal["mean", "sum"] = "mean",
        empty: OnEmpty = "error",
        max_batch: int | None = None,
    ) -> None:
        super().__init__(empty=empty, max_batch=max_batch)
        check_choice("output", output, ("mean", "sum"))
        self.output = output
        self.typical_range = (-1.0, 1.0) if output == "mean" else (-10.0, 10.0)
        self.suggested_scale = 10.0 if output == "mean" else 1.0
        self._list: Any = None

    def build(self) -> None:
        """Reads the word list.

        Raises:
            ImportError: afinn is not installed.
        """
        self._list = import_optional("afinn", owner="AFINNSentiment", fix=_FIX).Afinn(language="en")

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Scores (n,)."""
        scores = torch.tensor([self._list.score(text) for text in texts], dtype=torch.float64)
        if self.output == "sum":
            return scores
        return scores / torch.tensor([float(len(text.split())) for text in texts], dtype=torch.float64)
