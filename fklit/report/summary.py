"""Figures of a method over the prompts of a run, for the headline table and for JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fklit.report.reading import RunFolder
from fklit.report.record import Floats, PromptRecord

Method = Literal["base", "best_of_n", "fk", "corrected"]
LABELS: dict[Method, str] = {
    "base": "base",
    "best_of_n": "best of n",
    "fk": "FK steering",
    "corrected": "corrected guidance",
}


@dataclass(frozen=True)
class MethodRun:
    """A run in the part it plays in a comparison.

    Attributes:
        method: `"base"` (unsteered samples, all alike), `"best_of_n"` (the same, the best one chosen), `"fk"` or
            `"corrected"` (guidance; without a reward the chosen one is drawn by weight).
        run: the folder.
    """

    method: Method
    run: RunFolder

    @property
    def label(self) -> str:
        """Name for people."""
        return LABELS[self.method]

    def reward_mean(self, record: PromptRecord) -> float:
        """Mean reward of the K samples; by weight unless the method is the base, whose samples count alike.

        NaN without a reward.
        """
        if record.rewards is None:
            return math.nan
        return _mean(record.rewards) if self.method == "base" else record.weighted_mean(record.rewards)

    def chosen(self, record: PromptRecord) -> int | None:
        """Slot of the chosen sample; None for the base, which does not choose."""
        return None if self.method == "base" else record.chosen

    def of_chosen(self, record: PromptRecord, values: Floats) -> float:
        """The chosen sample's value; for the base what a sample has on average."""
        slot = self.chosen(record)
        return _mean(values) if slot is None else float(values[slot])

    def per_prompt(self, score: str | None = None) -> dict[int, float]:
        """Prompt index -> value of the chosen sample: its reward, or a further score by name where it is known."""
        values = {}
        for index, record in self.run.records.items():
            source = record.rewards if score is None else record.scores.get(score)
            if source is not None:
                values[index] = self.of_chosen(record, source)
        return values

    def figures(self) -> dict[str, float | None]:
        """The method's line in the table: means over prompts and total costs.

        Returns:
            `reward_mean`, `reward_best` (NaN without a reward), `<score>_mean` for each further score,
            `unique_roots`, of corrected guidance `ess` at the end and `log_weight_std` of a step (means over prompts);
            `denoiser_calls`, `decodes`, `reward_calls`, `seconds` (totals); `peak_memory_bytes` (highest).
        """
        records = list(self.run.records.values())
        figures: dict[str, float | None] = {
            "reward_mean": _mean([self.reward_mean(record) for record in records]),
            "reward_best": _mean(list(self.per_prompt().values())),
        }
        for name in score_names([self]):
            figures[f"{name}_mean"] = _mean(list(self.per_prompt(name).values()))
        if self.run.corrects and self.method != "base":
            figures["ess"] = _mean([float(record.ess[-1]) for record in records])
            figures["log_weight_std"] = _mean(
                [_mean(record.log_weight_std) for record in records if record.log_weight_std is not None]
            )
        figures["unique_roots"] = _mean([float(record.unique_roots) for record in records])
        for key in ("denoiser_calls", "decodes", "reward_calls", "seconds", "peak_memory_bytes"):
            figures[key] = self.run.total(key)
        return figures


def score_names(methods: Sequence[MethodRun]) -> list[str]:
    """Names of the further scores that any prompt of any method has, in order of appearance."""
    return list(dict.fromkeys(name for m in methods for record in m.run.records.values() for name in record.scores))


def _mean(values: object) -> float:
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return float(finite.mean()) if len(finite) else math.nan
