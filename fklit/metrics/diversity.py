"""How different the samples of one prompt are: steering gains reward at the price of variety."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fklit.metrics.clip_features import CLIPFeatures
from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.samples import SampleBatch


def pairwise_distance(features: Float[Tensor, "b k d"]) -> Float[Tensor, " b"]:
    """Mean of `1 - cosine` over the pairs among the K features of each group; 0 if all are alike.

    Raises:
        ValueError: A group has fewer than two members.
    """
    size = features.shape[1]
    if size < 2:
        raise ValueError(f"expected at least 2 samples a prompt, got {size}; a distance needs a pair.")
    unit = F.normalize(features.double(), dim=-1)
    # the sum over pairs follows from the norm of the sum: |sum u|^2 = K + 2 * sum of cosines over pairs
    cosines = (unit.sum(1).square().sum(-1) - size) / (size * (size - 1))
    return 1 - cosines


class CLIPDiversity(PromptMetric):
    """Mean over prompts of the mean pairwise `1 - cosine` between CLIP image embeddings of a prompt's samples.

    In [0, 2]; all K samples of a prompt count alike, whatever their weights.

    Args:
        model_name: Any model of open_clip, as in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        max_batch: Most images at once; None for no limit.
        by: As in `PromptMetric`.
    """

    higher_is_better = True
    accepts = "image"

    def __init__(
        self, model_name: str, pretrained: str | None = None, *, max_batch: int | None = None, by: str | None = None
    ) -> None:
        super().__init__(by=by)
        self.features = CLIPFeatures(model_name, pretrained, max_batch=max_batch)

    def load(self) -> None:
        """Loads the model."""
        self.features.load()

    def check_run(self, name: str, *, num_prompts: int | None, num_particles: int | None) -> None:
        """Refuses one sample a prompt.

        Raises:
            ValueError: There is only one.
        """
        if num_particles is not None and num_particles < 2:
            raise ValueError(
                f"{name} ({type(self).__name__}) expected at least 2 samples a prompt, got {num_particles}; raise "
                "num_particles, or leave it out."
            )

    def values(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> Float[Tensor, " b"]:
        """The distance of each prompt's samples.

        Raises:
            ValueError: There are fewer than two samples a prompt.
        """
        features = self.features(samples.flatten(0, 1))
        return pairwise_distance(features.unflatten(0, samples.shape[:2]))
