"""Metrics of one number a prompt: each prompt counts once, over all and by a key of the metadata."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fklit.checks import check_choice
from fklit.metrics.prompt_table import PromptTable, rows_of
from fklit.metrics.sample_metric import SampleMetric
from fklit.metrics.samples import SampleBatch

OnNan = Literal["error", "omit"]


class PromptMetric(PromptTable, SampleMetric):
    """Mean over prompts of what `values` says of each, wherever and however often it was seen.

    Distributed samplers repeat items until every process has as many; a prompt counts once by its index.

    Attributes:
        of_chosen: Whether it measures the chosen sample alone, so that an unsteered one can be measured likewise.

    Args:
        by: Key of the metadata, such as `"tag"`, by whose values the mean is also taken; None for the mean alone.
        on_nan: "error" refuses values that are not finite by name; "omit" leaves them out of the mean and reports
            their share as `omitted`.

    Raises:
        ValueError: `on_nan` is neither.
    """

    of_chosen: ClassVar[bool] = False

    def __init__(self, *, by: str | None = None, on_nan: OnNan = "error") -> None:
        super().__init__()
        check_choice("on_nan", on_nan, ("error", "omit"))
        self.by = by
        self.on_nan: OnNan = on_nan

    @abstractmethod
    def values(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> Float[Tensor, "b ..."]:
        """One number for each of B prompts, (B,), or several, (B, `num_values`), of which the first is the headline."""

    def measure(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> Float64[Tensor, "b v"]:
        """`values` as float64 (B, `num_values`), of an empty batch without a call; NaN for what is omitted.

        Raises:
            ValueError: A value is not finite, and such are not omitted.
        """
        if not batch.prompts:
            return torch.zeros(0, self.num_values, dtype=torch.float64, device=self.device)
        with torch.no_grad():
            found = self.values(samples, batch).detach().to(self.device, torch.float64)
        found = found.reshape(len(batch.prompts), self.num_values)
        wrong = ~found.isfinite().all(dim=1)
        if self.on_nan == "error" and wrong.any():
            row = int(wrong.int().argmax())
            raise ValueError(
                f"{type(self).__name__} expected a finite value of every prompt, got {float(found[row, 0])} for "
                f"{batch.prompts[row]!r}; fix what measures, or leave such prompts out of the mean by on_nan='omit'."
            )
        return found.masked_fill(wrong.unsqueeze(1), torch.nan)

    def update(
        self, samples: Float[Tensor, "b k ..."], batch: SampleBatch, measured: Float64[Tensor, "b v"] | None = None
    ) -> None:
        """Adds B prompts.

        Args:
            samples: All samples of these prompts.
            batch: What is known about them.
            measured: What `measure` gave, if it was called.

        Raises:
            ValueError: The metadata of a prompt lacks `by`, or a value is not finite (see `measure`).
        """
        measured = self.measure(samples, batch) if measured is None else measured
        self.add(batch.indices, measured, labels_of(batch, self.by))

    def compute(self) -> Any:
        """The mean, a float64 scalar, NaN without prompts; a dictionary if there is more to say.

        Returns:
            With `by` a dictionary of "mean" and one entry for each value that the metadata have; with `on_nan="omit"`
            one that also has "omitted", the share of prompts that are in no mean.
        """
        rows, labels = self.table()
        first = rows[:, 0]
        if self.by is None and self.on_nan == "error":
            return first.mean()
        found = {"mean": first.nanmean()} | {
            label: first[rows_of(label, labels)].nanmean() for label in sorted(set(labels))
        }
        found = found if self.by is not None else {"mean": found["mean"]}
        return found | ({"omitted": first.isnan().double().mean()} if self.on_nan == "omit" else {})


def labels_of(batch: SampleBatch, by: str | None) -> list[str]:
    """The label of each prompt of a batch: what its metadata has under `by`, or nothing.

    Raises:
        ValueError: It has nothing there.
    """
    if by is None:
        return [""] * len(batch.prompts)
    for prompt, line in zip(batch.prompts, batch.metadata, strict=True):
        if by not in line:
            raise ValueError(
                f"expected {by!r} in the metadata of every prompt, got {sorted(line)} for {prompt!r}; add it, or give "
                "by=None."
            )
    return [str(line[by]) for line in batch.metadata]
