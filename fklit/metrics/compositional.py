"""GenEval's tasks as a metric: how often images show what their prompts ask for."""

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.metrics.detector import Judge
from fklit.metrics.geneval import TAGS
from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.prompt_table import rows_of
from fklit.metrics.samples import SampleBatch


class Compositional(PromptMetric):
    """Share of the chosen images that the judge finds correct, for each of GenEval's six tasks and over all.

    As in GenEval (Ghosh et al. 2023, arXiv:2310.11513), "overall" is the mean over the tasks seen, so that a task
    with few prompts counts as much as one with many.

    Args:
        folder: Folder of the judge's weights; None for the model that ships with fklit (emoji scenes).
        max_batch: Most images given to the judge at once.
    """

    higher_is_better = True
    needs_prompts = True
    of_chosen = True
    accepts = "image"
    num_values = 3

    def __init__(self, folder: str | None = None, *, max_batch: int = 256) -> None:
        super().__init__(by="tag")
        self.judge = Judge(folder, max_batch=max_batch)

    def load(self) -> None:
        """Loads the judge."""
        self.judge.load()

    def values(self, samples: Float[Tensor, "b k 3 h w"], batch: SampleBatch) -> Float[Tensor, "b 3"]:
        """For each prompt's chosen sample whether it is correct, whether exactly so, and the share of what is met.

        Args:
            samples: Images in [0, 1].
            batch: Its metadata is GenEval's, with one of the six tasks as `tag`.

        Raises:
            ValueError: A `tag` is unknown.
        """
        unknown = [line.get("tag") for line in batch.metadata if line.get("tag") not in TAGS]
        if unknown:
            raise ValueError(f"expected a tag of {TAGS} in the metadata, got {unknown[0]!r}; give GenEval's metadata.")
        verdicts = self.judge.judge(batch.choose(samples), batch.metadata)
        rows = [[float(verdict.correct), float(verdict.exact), verdict.score] for verdict in verdicts]
        return torch.tensor(rows, dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]: "overall", "overall_exact", "overall_partial" and one for each task seen.

        "exact" also asks that nothing else is in the image; "partial" is the share of requirements that are met.
        """
        rows, labels = self.table()
        seen = [tag for tag in TAGS if tag in labels]
        shares = {tag: rows[rows_of(tag, labels)].mean(dim=0) for tag in seen}
        mean = torch.stack([*shares.values()]).mean(dim=0) if shares else rows.mean(dim=0)
        names = ("overall", "overall_exact", "overall_partial")
        return dict(zip(names, mean, strict=True)) | {tag: share[0] for tag, share in shares.items()}
