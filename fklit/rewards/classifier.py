"""A class of any image classifier as a reward."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fklit.rewards.base import Metadata, Reward, RewardError
from fklit.rewards.labeled_network import LabeledNetwork, load_labeled_network
from fklit.rewards.labels import find_label


class ImageClassifier(Reward):
    """Log probability of a class under an image classifier, in nats, -inf to 0; prompts are not read.

    With `reward_scale` 1, which is suggested, steering samples from `p(x) p(class | x)`, up to a factor: from the
    images of that class that the model makes, as far as the classifier is right (Bayes' rule; Dhariwal and Nichol 2021,
    arXiv:2105.05233, section 4). A larger scale asks for images that are more typical of the class.

    ```python
    ImageClassifier("google/vit-base-patch16-224", "tabby")
    ImageClassifier("torchvision:ResNet50_Weights.IMAGENET1K_V2", 281)
    ```

    Preprocessing is that of the model, on tensors; gradients reach the pixels. A model whose configuration says
    `multi_label_classification` has independent labels, a sigmoid each.

    Args:
        model_name: "owner/name" of the hub or a local folder in the format of transformers, or "torchvision:" and the
            name of weights.
        label: Name or number of the class; None to read it from the metadata of each prompt. A name is taken as the
            model has it, in any case, or as one of several separated by commas.
        metadata_key: Where metadata holds the class of a prompt, a name or a number, if `label` is None.
        cache_dir: Where downloads from the hub are kept; None for the default. Those of torchvision are kept below
            `TORCH_HOME`.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    accepts = "image"
    needs_prompts = False
    uses_metadata = True
    typical_range = (-10.0, 0.0)
    upper_bound = 0.0
    suggested_scale = 1.0

    network: LabeledNetwork

    def __init__(
        self,
        model_name: str,
        label: int | str | None = None,
        *,
        metadata_key: str = "class",
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        self.model_name = model_name
        self.label = label
        self.metadata_key = metadata_key
        self.cache_dir = cache_dir
        self._number: int | None = None

    def build(self) -> None:
        """Loads the classifier and looks the label up.

        Raises:
            ValueError: The model is no classifier, or has no such label.
            OSError: The model could not be loaded.
        """
        network, owner = self.load_network(), type(self).__name__
        self._number = None if self.label is None else find_label(self.label, network.labels, owner=owner)
        self.network = network

    def load_network(self) -> LabeledNetwork:
        """The classifier, of which a subclass may have another kind."""
        return load_labeled_network(self.model_name, owner=type(self).__name__, cache_dir=self.cache_dir)

    def score(self, samples: Tensor, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """Log probabilities (n,) of images (n, 3, H, W) in [0, 1]; one channel is repeated to three."""
        numbers = [self._of(item) for item in metadata or [{}] * len(prompts)]
        index = torch.tensor(numbers, device=samples.device)
        return self.network.log_probabilities(samples).gather(1, index[:, None])[:, 0]

    def _of(self, item: object) -> int:
        if self._number is not None:
            return self._number
        if not isinstance(item, Mapping) or self.metadata_key not in item:
            raise RewardError(
                f"{type(self).__name__} expected the class of each prompt in its metadata under {self.metadata_key!r}, "
                f"got {item!r}; add it, or set label."
            )
        try:
            return find_label(item[self.metadata_key], self.network.labels, owner=type(self).__name__)
        except ValueError as error:
            raise RewardError(str(error)) from error
