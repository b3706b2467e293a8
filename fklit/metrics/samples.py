"""What every metric of a sampling task gets: all samples of a batch of prompts, and what is known about these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric


@dataclass(frozen=True)
class SampleBatch:
    """B prompts whose samples `(B, K, C, H, W)` a metric gets beside this.

    A metric that is passed by name to the `metrics` of a task has one signature,
    `update(self, samples: Tensor, batch: SampleBatch) -> None`. Metrics of single samples look at those that the method
    has chosen, `batch.choose(samples)`; metrics of sets of samples look at all of them.

    Attributes:
        prompts: B texts.
        metadata: Whatever else the data module knows about each prompt, B mappings.
        chosen: Slot from 0 to K - 1 of the sample of each prompt that counts as its result, int64 `(B,)`.

    Raises:
        ValueError: The three differ in length, or `chosen` is not int64 `(B,)`.
    """

    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]]
    chosen: Tensor

    def __post_init__(self) -> None:
        number = len(self.prompts)
        if len(self.metadata) != number:
            raise ValueError(
                f"expected metadata for each of {number} prompts, got {len(self.metadata)}; give one mapping a prompt."
            )
        if self.chosen.shape != (number,) or self.chosen.dtype != torch.int64:
            raise ValueError(
                f"expected chosen as int64 ({number},), got {self.chosen.dtype} {tuple(self.chosen.shape)}; "
                "give the slot of one sample a prompt."
            )

    def choose(self, samples: Float[Tensor, "b k c h w"]) -> Float[Tensor, "b c h w"]:
        """The chosen sample of each prompt.

        Args:
            samples: All samples of these prompts.

        Raises:
            ValueError: The samples are not `(B, K, C, H, W)` of as many prompts.
        """
        if samples.ndim != 5 or len(samples) != len(self.prompts):
            raise ValueError(
                f"expected samples (B, K, C, H, W) of B={len(self.prompts)} prompts, got {tuple(samples.shape)}; "
                "give all samples of the batch."
            )
        picked: Tensor = samples[torch.arange(len(samples), device=samples.device), self.chosen.to(samples.device)]
        return picked


class ChosenSamples(WrapperMetric):
    """Any image metric of torchmetrics on the chosen sample of each prompt.

    Images come in [0, 1]; most metrics of torchmetrics want `normalize: true` for these.

    Args:
        metric: Its `update` takes images `(B, C, H, W)`, and their prompts after them if `pass_prompts` is set.
        pass_prompts: Whether the metric takes prompts, too.
    """

    def __init__(self, metric: Metric, *, pass_prompts: bool = False) -> None:
        super().__init__()
        self.metric = metric
        self.pass_prompts = pass_prompts

    def update(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> None:
        """Hands the chosen samples of B prompts on."""
        self.metric.update(*self._arguments(samples, batch))

    def forward(self, samples: Float[Tensor, "b k c h w"], batch: SampleBatch) -> Any:
        """The metric of this batch alone, which is added to the rest."""
        return self.metric(*self._arguments(samples, batch))

    def compute(self) -> Any:
        """What the metric says about all samples so far."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forgets all samples."""
        super().reset()
        self.metric.reset()

    def _arguments(self, samples: Tensor, batch: SampleBatch) -> tuple[Any, ...]:
        images = batch.choose(samples)
        return (images, list(batch.prompts)) if self.pass_prompts else (images,)
