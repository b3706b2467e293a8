"""Any image metric of torchmetrics on the samples that a method has chosen."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from fklit.metrics.samples import SampleBatch


class ChosenSamples(WrapperMetric):
    """Any image metric of torchmetrics on the chosen sample of each prompt.

    Images come in [0, 1]; most metrics of torchmetrics want `normalize: true` for these. What a distributed sampler
    repeats is dropped before it is sampled, so that the metric never sees it.

    Args:
        metric: Its `update` takes images `(B, C, H, W)`, and their prompts after them if `pass_prompts` is set.
        pass_prompts: Whether the metric takes prompts, too.
    """

    def __init__(self, metric: Metric, *, pass_prompts: bool = False) -> None:
        super().__init__()
        self.metric = metric
        self.pass_prompts = pass_prompts
        self._seen: set[int] = set()

    def update(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> None:
        """Hands the chosen samples of B prompts on; each of a process's prompts once, however often it comes."""
        new = self._new(batch)
        if new:
            self.metric.update(*self._arguments(samples, batch, new))

    def forward(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> Any:
        """The metric of this batch alone, which is added to the rest."""
        return self.metric(*self._arguments(samples, batch, list(range(len(batch.prompts)))))

    def compute(self) -> Any:
        """What the metric says about all samples so far."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forgets all samples."""
        super().reset()
        self.metric.reset()
        self._seen = set()

    def _new(self, batch: SampleBatch) -> list[int]:
        """Rows of prompts that this process has not handed on."""
        rows = {index: row for row, index in reversed([*enumerate(batch.indices.tolist())]) if index not in self._seen}
        self._seen.update(rows)
        return sorted(rows.values())

    def _arguments(self, samples: Tensor, batch: SampleBatch, rows: list[int]) -> tuple[Any, ...]:
        images = batch.choose(samples)[rows]
        return (images, [batch.prompts[row] for row in rows]) if self.pass_prompts else (images,)
