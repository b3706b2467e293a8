"""A label of any text classifier as a reward: acceptability, toxicity, sentiment, topic."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.rewards.base import RewardError
from fklit.rewards.labels import find_label
from fklit.rewards.text_network import TextNetwork
from fklit.rewards.text_reward import OnEmpty, TextReward
from fklit.rewards.vision_language import WeightType


class TextClassifier(TextReward):
    """Log probability of a label under a text classifier, in nats, -inf to 0; with `unwanted` that of its absence.

    With `reward_scale` 1, steering samples from `p(x) p(label | x)`, up to a factor: from the texts with that label
    that the model writes, as far as the classifier is right (Bayes' rule). The FK steering paper (Singhal et al. 2025,
    arXiv:2501.06848) guides by these at a scale of 10: acceptability and toxicity.

    ```python
    TextClassifier("textattack/roberta-base-CoLA", "LABEL_1")  # acceptable
    TextClassifier("SkolkovoInstitute/roberta_toxicity_classifier", "toxic", unwanted=True)
    ```

    The whole sample is read, its prompt included. Gradients do not reach texts.

    Args:
        model_name: "owner/name" of the hub or a local folder in the format of transformers.
        label: Name or number of the label; None to read it from the metadata of each prompt. A name is taken as the
            model has it, in any case.
        unwanted: Whether to score `log(1 - p)` in place of `log p`.
        metadata_key: Where metadata holds the label of a prompt, if `label` is None.
        multi_label: Whether labels are independent (a sigmoid each) instead of exclusive (one softmax); None to take it
            from the model's configuration, which some models leave out.
        max_tokens: Read the first so many tokens of each text, with those that the tokenizer adds; None reads all and
            refuses texts that are too long for the model.
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        dtype: Precision of the weights, "auto" for that of the checkpoint. `.half()`, `.bfloat16()` and `.double()`
            win.
        revision: Branch, tag or commit at the hub; None for the newest.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most texts at once; None for no limit.
        pad: Fill micro-batches, see `Reward`: here one for each length, in steps of 16 tokens.

    Raises:
        ValueError: An argument is none of those allowed.
    """

    typical_range = (-10.0, 0.0)
    suggested_scale = 1.0

    network: TextNetwork

    def __init__(
        self,
        model_name: str,
        label: int | str | None = None,
        *,
        unwanted: bool = False,
        metadata_key: str = "label",
        multi_label: bool | None = None,
        max_tokens: int | None = None,
        empty: OnEmpty = "error",
        dtype: WeightType = "float32",
        revision: str | None = None,
        cache_dir: str | None = None,
        max_batch: int | None = 64,
        pad: bool = False,
    ) -> None:
        super().__init__(empty=empty, max_batch=max_batch, pad=pad)
        check_choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
        self.model_name = model_name
        self.label = label
        self.unwanted = unwanted
        self.metadata_key = metadata_key
        self.multi_label = multi_label
        self.max_tokens = None if max_tokens is None else check_count("max_tokens", max_tokens, minimum=3)
        self.dtype: WeightType = dtype
        self.revision = revision
        self.cache_dir = cache_dir
        self._number: int | None = None

    def build(self) -> None:
        """Loads the classifier and looks the label up.

        Raises:
            ValueError: The model is no classifier, or has no such label.
            OSError: The model could not be loaded.
        """
        self.network = TextNetwork(
            self.model_name,
            owner="TextClassifier",
            multi_label=self.multi_label,
            dtype=self.dtype,
            revision=self.revision,
            cache_dir=self.cache_dir,
        )
        named = self.label is not None
        self._number = find_label(self.label, self.network.labels, owner="TextClassifier") if named else None

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Log probabilities (n,).

        Raises:
            RewardError: A text is longer than the model takes, or metadata lack the label.
        """
        numbers = [self._of(item) for item in metadata]
        with torch.no_grad():
            wanted, absent = self.network.log_probabilities(
                texts, max_tokens=self.max_tokens, fill=self.max_batch if self.pad else None
            )
        found = absent if self.unwanted else wanted
        return found.gather(1, torch.tensor(numbers, device=found.device)[:, None])[:, 0]

    def _of(self, item: Mapping[str, Any]) -> int:
        if self._number is not None:
            return self._number
        if self.metadata_key not in item:
            raise RewardError(
                f"TextClassifier expected the label of each prompt in its metadata under {self.metadata_key!r}, got "
                f"{item!r}; add it, or set label."
            )
        try:
            return find_label(item[self.metadata_key], self.network.labels, owner="TextClassifier")
        except ValueError as error:
            raise RewardError(str(error)) from error
