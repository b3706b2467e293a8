"""The usual CLIP score as a metric."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from fklit.metrics.samples import SampleBatch
from fklit.rewards.clip import CLIPScore


class MeanCLIPScore(Metric):
    """Mean over prompts of 100 times the cosine between the chosen image and its prompt (Hessel et al. 2021).

    See arXiv:2104.08718, equation 1, here with a weight of 100 in place of 2.5 and without its maximum with 0.
    A model that is also the reward does not measure what was gained by steering.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        max_batch: Most images at once; None for no limit.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, model_name: str, pretrained: str | None = None, *, max_batch: int | None = None) -> None:
        super().__init__()
        self.score = CLIPScore(model_name, pretrained, scale=100.0, max_batch=max_batch)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> None:
        """Adds the chosen samples, in [0, 1], of B prompts."""
        with torch.no_grad():
            scores = self.score(batch.choose(samples), batch.prompts)
        self.total += scores.double().sum()
        self.count += len(scores)

    def compute(self) -> Tensor:
        """The mean, float64; NaN before any update."""
        return self.total / self.count
