"""What every metric of a sampling task gets: all samples of a batch of prompts, and what is known about these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SampleBatch:
    """B prompts whose samples `(B, K, ...)` a metric gets beside this.

    A metric of samples has one signature, `update(self, samples: Tensor, batch: SampleBatch) -> None`. Metrics of
    single samples look at those that the method has chosen, `batch.choose(samples)`; metrics of sets of samples look
    at all of them.

    Attributes:
        prompts: B texts.
        metadata: Whatever else the data module knows about each prompt, B mappings.
        chosen: Slot from 0 to K - 1 of the sample of each prompt that counts as its result, int64 `(B,)`.
        indices: Place of each prompt in its data set, int64 `(B,)`, by which one that comes twice counts once.
        result: What the method returned, a `fklit.feynman_kac.ParticleResult` with weights and lineages; None for
            samples that are no particles, such as those of a model in training.

    Raises:
        ValueError: The four differ in length, or `chosen` or `indices` is not int64 `(B,)`.
    """

    prompts: Sequence[str]
    metadata: Sequence[Mapping[str, Any]]
    chosen: Tensor
    indices: Tensor
    result: Any = None

    def __post_init__(self) -> None:
        number = len(self.prompts)
        if len(self.metadata) != number:
            raise ValueError(
                f"expected metadata for each of {number} prompts, got {len(self.metadata)}; give one mapping a prompt."
            )
        for name, given, what in (("chosen", self.chosen, "slot of one sample"), ("indices", self.indices, "place")):
            if given.shape != (number,) or given.dtype != torch.int64:
                raise ValueError(
                    f"expected {name} as int64 ({number},), got {given.dtype} {tuple(given.shape)}; give the {what} a "
                    "prompt."
                )

    def choose(self, samples: Float[Tensor, "b k ..."]) -> Float[Tensor, "b ..."]:
        """The chosen sample of each prompt, (B, C, H, W) of images.

        Args:
            samples: All samples of these prompts: images (B, K, C, H, W), videos (B, K, F, C, H, W), waveforms
                (B, K, C, T) or points (B, K, d).

        Raises:
            ValueError: The samples are not (B, K, ...) of as many prompts.
        """
        if samples.ndim < 3 or len(samples) != len(self.prompts):
            raise ValueError(
                f"expected samples (B, K, ...) of B={len(self.prompts)} prompts, got {tuple(samples.shape)}; "
                "give all samples of the batch."
            )
        picked: Tensor = samples[torch.arange(len(samples), device=samples.device), self.chosen.to(samples.device)]
        return picked
