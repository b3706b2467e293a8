"""How different the samples of one prompt are: steering gains reward at the price of variety."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from fklit.metrics.samples import SampleBatch
from fklit.rewards.clip import CLIPScore


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


class CLIPDiversity(Metric):
    """Mean over prompts of the mean pairwise `1 - cosine` between CLIP image embeddings of a prompt's samples.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, model_name: str, pretrained: str | None = None) -> None:
        super().__init__()
        self.score = CLIPScore(model_name, pretrained)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> None:
        """Adds all samples, in [0, 1], of B prompts.

        Raises:
            ValueError: There are fewer than two samples a prompt.
        """
        with torch.no_grad():
            features = self.score.embed_images(samples.flatten(0, 1))
        distances = pairwise_distance(features.reshape(*samples.shape[:2], -1))
        self.total += distances.sum()
        self.count += len(distances)

    def compute(self) -> Tensor:
        """The mean over prompts, in [0, 2], float64; NaN before any update."""
        return self.total / self.count
