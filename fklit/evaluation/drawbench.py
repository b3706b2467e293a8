"""DrawBench: 200 prompts of 11 categories."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically
from fklit.evaluation.benchmark import Benchmark, text_of
from fklit.evaluation.hps import write_jpeg
from fklit.evaluation.sampled import SampledPrompt


class DrawBench(Benchmark):
    """DrawBench (Saharia et al. 2022, arXiv:2205.11487): a `.csv` with the columns `Prompts` and `Category`.

    The tag is the category. People judge it in the paper; the scorer that reads it is that of HPS v2
    (`hpsv2.evaluation.evaluate(mode="drawbench", root_dir="images", data_path=".")`).

    Written: `drawbench.json`, an array of the prompts of this run, and `images/RUN/00000.jpg`, numbered as there.
    """

    name = "drawbench"
    suffixes = (".csv",)
    column = "Prompts"
    one_image = True

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By the two columns."""
        return {"Prompts", "Category"} <= row.keys()

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Takes the category as the tag, without the space behind "Gary Marcus et al. " of the published file."""
        return {**row, "tag": text_of(row, "Category", where, "DrawBench").strip()}

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `drawbench.json` and `images/RUN/00000.jpg`."""
        write_json_atomically(folder / "drawbench.json", [sample.prompt for sample in samples], indent=1)
        for place, sample in enumerate(samples):
            write_jpeg(sample.images[0], folder / "images" / run / f"{place:05d}.jpg")
