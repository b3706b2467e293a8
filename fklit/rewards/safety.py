"""A penalty on images that a classifier takes for unwanted ones."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fklit.rewards.base import Reward
from fklit.rewards.labeled_network import LabeledNetwork, load_labeled_network
from fklit.rewards.labels import find_label


class SafetyPenalty(Reward):
    """Log probability that an image has none of the unwanted labels, in nats, -inf to 0; prompts are not read.

    With `reward_scale` 1, which is suggested, steering samples from `p(x) p(wanted | x)`, up to a factor: from the
    images that the model makes without the unwanted ones, as far as the classifier is right. Add it to another reward
    with `WeightedSum([reward, SafetyPenalty()], [1.0, weight])`.

    The probability is that of one softmax over all labels, or the product over unwanted ones of independent labels
    (`multi_label_classification`). It is computed from logits, so that it stays exact where it is tiny. It is a soft
    penalty and the opinion of one classifier: no substitute for a filter of what is shown to people.

    The default model (Apache 2.0) has the labels "normal" and "nsfw", and is 0.34 GB in float32.

    Args:
        model_name: "owner/name" of the hub or a local folder in the format of transformers, or "torchvision:" and the
            name of weights.
        unwanted: Name or number of the unwanted label, or several.
        cache_dir: Where downloads from the hub are kept; None for the default. Those of torchvision are kept below
            `TORCH_HOME`.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: No label is unwanted.
    """

    accepts = "image"
    needs_prompts = False
    typical_range = (-10.0, 0.0)
    suggested_scale = 1.0

    network: LabeledNetwork

    def __init__(
        self,
        model_name: str = "Falconsai/nsfw_image_detection",
        unwanted: int | str | Sequence[int | str] = "nsfw",
        *,
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        self.unwanted = [unwanted] if isinstance(unwanted, int | str) else list(unwanted)
        if not self.unwanted:
            raise ValueError("expected at least one unwanted label, got []; give names that the model has.")
        self.model_name = model_name
        self.cache_dir = cache_dir
        self._numbers: list[int] = []

    def build(self) -> None:
        """Loads the classifier and looks the labels up.

        Raises:
            ValueError: The model is no classifier, has no such labels, or has no others.
            OSError: The model could not be loaded.
        """
        network = load_labeled_network(self.model_name, owner="SafetyPenalty", cache_dir=self.cache_dir)
        numbers = {find_label(label, network.labels, owner="SafetyPenalty") for label in self.unwanted}
        if len(numbers) == len(network.labels) and not network.multi_label:
            raise ValueError(
                f"SafetyPenalty expected a label that is not unwanted, got all of {list(network.labels)}; omit those "
                "of images that may be."
            )
        self._numbers = sorted(numbers)
        self.network = network

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Log probabilities (n,) of images (n, 3, H, W) in [0, 1]; one channel is repeated to three."""
        logits = self.network(samples)
        if self.network.multi_label:
            return F.logsigmoid(-logits[:, self._numbers]).sum(-1)
        wanted = [number for number in range(logits.shape[1]) if number not in self._numbers]
        kept: Tensor = logits.log_softmax(-1)[:, wanted].logsumexp(-1)
        return kept.clamp(max=0)  # which rounding may exceed
