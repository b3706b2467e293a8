"""The usual CLIP score, and how different the samples of a prompt are."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from fklit.rewards.clip import CLIPScore


class MeanCLIPScore(Metric):
    """Mean of 100 times the cosine between picture and prompt (Hessel et al. 2021, arXiv:2104.08718, without its 2.5).

    Negative cosines count as they are. A model that is also the reward does not measure what was gained by steering.

    Args:
        model_name: As in :class:`fklit.rewards.CLIPScore`.
        pretrained: As there.
        max_batch: Most pictures at once; None for no limit.
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

    def update(self, images: Float[Tensor, "n c h w"], prompts: Sequence[str]) -> None:
        """Adds n pictures in [0, 1] with their n prompts."""
        with torch.no_grad():
            scores = self.score(images, prompts)
        self.total += scores.double().sum()
        self.count += len(scores)

    def compute(self) -> Tensor:
        """The mean, float64; NaN before any update."""
        return self.total / self.count
