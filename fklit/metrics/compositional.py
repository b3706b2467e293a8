"""GenEval's tasks as a metric: how often images show what their prompts ask for."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from fklit.metrics.detector import Judge
from fklit.metrics.geneval import TAGS
from fklit.metrics.samples import SampleBatch


class Compositional(Metric):
    """Share of the chosen images that the judge finds correct, for each of GenEval's six tasks and over all.

    As in GenEval (Ghosh et al. 2023, arXiv:2310.11513), "overall" is the mean over the tasks seen, so that a task
    with few prompts counts as much as one with many.

    Args:
        folder: Folder of the judge's weights; None for the model that ships with fklit (emoji scenes).
        max_batch: Most images given to the judge at once.
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

    def update(self, samples: Float[Tensor, "b k 3 h w"], batch: SampleBatch) -> None:
        """Judges the chosen samples of B prompts.

        Args:
            samples: Images in [0, 1].
            batch: Its metadata is GenEval's, with one of the six tasks as `tag`.

        Raises:
            ValueError: A `tag` is unknown.
        """
        tags = [line.get("tag") for line in batch.metadata]
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise ValueError(f"expected a tag of {TAGS} in the metadata, got {unknown[0]!r}; give GenEval's metadata.")
        for tag, verdict in zip(tags, self.judge.judge(batch.choose(samples), batch.metadata), strict=True):
            spot = TAGS.index(tag)
            self.correct[spot] += float(verdict.correct)
            self.exact[spot] += float(verdict.exact)
            self.partial[spot] += verdict.score
            self.total[spot] += 1

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]: "overall", "overall_exact", "overall_partial" and one for each task seen.

        "exact" also asks that nothing else is in the image; "partial" is the share of requirements that are met.
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
