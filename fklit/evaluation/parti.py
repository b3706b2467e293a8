"""PartiPrompts (P2): 1,632 prompts by category and challenge."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.evaluation.benchmark import Benchmark, text_of
from fklit.evaluation.evalscope import write_lines
from fklit.evaluation.sampled import SampledPrompt


class PartiPrompts(Benchmark):
    """PartiPrompts (Yu et al. 2022, arXiv:2206.10789): `PartiPrompts.tsv` of `google-research/parti`.

    Its columns are `Prompt`, `Category`, `Challenge` and `Note`, without quoting. The tag is the category; the
    challenge stays under `Challenge`.

    Written: as `EvalScope` does, with the category, since it has no scorer of its own (people judge it in the paper).
    """

    name = "parti"
    suffixes = (".tsv",)
    column = "Prompt"

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By prompt, category and challenge."""
        return {"Prompt", "Category", "Challenge"} <= row.keys()

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Takes the category as the tag."""
        text_of(row, "Challenge", where, "PartiPrompts")
        return {**row, "tag": text_of(row, "Category", where, "PartiPrompts").strip()}

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `RUN.jsonl`."""
        write_lines(samples, folder / f"{run}.jsonl")
