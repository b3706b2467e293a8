"""Steered against unsteered samples of the same prompts: means, the gain and its standard error."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.metrics.prompt_table import PromptTable, rows_of

_LEAST = 8  # prompts below which two standard errors decide nothing


@dataclass(frozen=True)
class Gain:
    """What steering changed in one number.

    Attributes:
        num_prompts: Prompts behind it.
        base: Mean over the unsteered samples.
        steered: Mean over the steered ones.
        gain: Mean of the differences.
        error: Its standard error, from the differences of the prompts (paired); NaN for fewer than two.
    """

    num_prompts: int
    base: float
    steered: float
    gain: float
    error: float

    def sign(self) -> int:
        """1 or -1 where the gain is more than two standard errors above or below zero, else 0.

        With fewer than 8 prompts it is always 0: a few equal differences, as of a judge that says right or wrong, have
        an error of 0.
        """
        decided = self.num_prompts >= _LEAST and abs(self.gain) > 2 * self.error
        return int(math.copysign(1, self.gain)) if decided else 0


class PairedMean(PromptTable):
    """Pairs of a number of an unsteered and of a steered sample, one pair a prompt; what is not finite is left out."""

    num_values = 2

    def update(
        self,
        indices: Int64[Tensor, " b"],
        pairs: Float64[Tensor, "b 2"],
        labels: list[str],
    ) -> None:
        """Adds B pairs (base, steered).

        Args:
            indices: Of the prompts in their data set.
            pairs: The numbers.
            labels: By which gains are also taken; empty for none.
        """
        self.add(indices, pairs, labels)

    def compute(self) -> dict[str, Float64[Tensor, "5"]]:
        """The fields of the `Gain` over all prompts, under "", and over those of each label."""
        rows, labels = self.table()
        kept = rows.isfinite().all(dim=1)
        found = {"": _gain(rows[kept])}
        for label in sorted(set(labels) - {""}):
            found[label] = _gain(rows[kept & rows_of(label, labels).to(kept.device)])
        return found

    def gains(self) -> dict[str, Gain]:
        """What `compute` says, by name."""
        return {
            label: Gain(int(values[0]), *(float(value) for value in values[1:]))
            for label, values in self.compute().items()
        }


def _gain(pairs: Tensor) -> Tensor:
    count = len(pairs)
    if not count:
        return torch.tensor([0.0, *[math.nan] * 4], dtype=torch.float64)
    differences = pairs[:, 1] - pairs[:, 0]
    error = float(differences.std()) / math.sqrt(count) if count > 1 else math.nan
    values = [count, *pairs.mean(dim=0).tolist(), float(differences.mean()), error]
    return torch.tensor(values, dtype=torch.float64)
