"""The probability of offensive language, by a small classifier that a package ships."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fklit.rewards.optional import import_optional
from fklit.rewards.text_reward import OnEmpty, TextReward


class ProfanityScore(TextReward):
    """Log probability that English text is not offensive, in nats, -inf to 0; of being offensive with `unwanted=False`.

    A linear classifier over words by the package alt-profanity-check (extra `parts`, 0.8 MB, MIT). It reads words, not
    sentences: "ass" is offensive to it where a donkey is meant. Judge by a network (`TextClassifier`).

    Args:
        unwanted: Whether offensive texts are the bad ones: `log(1 - p)`; False scores `log p`.
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        max_batch: Most texts at once; None for no limit.
    """

    typical_range = (-8.0, 0.0)
    suggested_scale = 1.0

    def __init__(self, *, unwanted: bool = True, empty: OnEmpty = "error", max_batch: int | None = None) -> None:
        super().__init__(empty=empty, max_batch=max_batch)
        self.unwanted = unwanted
        self._predict: Any = None

    def build(self) -> None:
        """Reads the classifier.

        Raises:
            ImportError: alt-profanity-check is not installed.
        """
        fix = "install the extra 'parts' (`pip install 'fklit[parts]'`), which pins the scikit-learn that it needs"
        self._predict = import_optional("profanity_check", owner="ProfanityScore", fix=fix).predict_prob

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Log probabilities (n,), float64."""
        chances = [float(chance) for chance in self._predict(list(texts))]
        kept = [1 - chance if self.unwanted else chance for chance in chances]
        return torch.tensor([math.log(chance) if chance > 0 else -math.inf for chance in kept], dtype=torch.float64)
