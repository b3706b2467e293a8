"""GenEval's tasks as a metric: how often pictures show what their prompts ask for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from fklit.emoji.prompts import TAGS
from fklit.metrics.detector import Judge


class Compositional(Metric):
    """Share of pictures that the judge finds correct, for each of GenEval's six tasks and over all.

    As in GenEval (Ghosh et al. 2023, arXiv:2310.11513), "overall" is the mean over the tasks seen, so that a task
    with few prompts counts as much as one with many.

    Args:
        folder: Folder of the judge's weights; None for the model that ships with fklit (emoji scenes).
        max_batch: Most pictures given to the judge at once.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    correct: Tensor
    exact: Tensor
    partial: Tensor
    total: Tensor

    def __init__(self, folder: str | None = None, *, max_batch: int = 256) -> None:
        super().__init__()
        self.judge = Judge(folder, max_batch=max_batch)
        for name in ("correct", "exact", "partial", "total"):
            self.add_state(name, default=torch.zeros(len(TAGS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Float[Tensor, "n 3 h w"], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Judges a batch.

        Args:
            images: Pictures in [0, 1].
            metadata: GenEval's metadata of the prompt of each picture; ``tag`` must be one of its six tasks.

        Raises:
            ValueError: If the numbers differ or a ``tag`` is unknown.
        """
        tags = [line.get("tag") for line in metadata]
        unknown = {tag for tag in tags if tag not in TAGS}
        if unknown:
            raise ValueError(f"Metadata with tag {unknown} was given; tags are {TAGS}.")
        for tag, verdict in zip(tags, self.judge.judge(images, metadata), strict=True):
            spot = TAGS.index(tag)
            self.correct[spot] += float(verdict.correct)
            self.exact[spot] += float(verdict.exact)
            self.partial[spot] += verdict.score
            self.total[spot] += 1

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]: "overall", "overall_exact", "overall_partial" and one for each task seen.

        "exact" also asks that nothing else is in the picture; "partial" is the share of requirements that are met.
        """
        seen = self.total > 0
        shares = {
            name: (count[seen] / self.total[seen])
            for name, count in (("correct", self.correct), ("exact", self.exact), ("partial", self.partial))
        }
        result = {
            "overall": shares["correct"].mean(),
            "overall_exact": shares["exact"].mean(),
            "overall_partial": shares["partial"].mean(),
        }
        tasks = [tag for tag, was_seen in zip(TAGS, seen.tolist(), strict=True) if was_seen]
        return result | {tag: share for tag, share in zip(tasks, shares["correct"], strict=True)}
