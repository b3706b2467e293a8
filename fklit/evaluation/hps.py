"""The benchmark of HPS v2: 800 prompts of each of four styles, and DrawBench."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.sampled import SampledPrompt

STYLES = ("anime", "concept-art", "paintings", "photo")
"""The styles of the benchmark, each a file of prompts."""


class HPSBenchmark(Benchmark):
    """The benchmark of HPS v2 (Wu et al. 2023, arXiv:2306.09341), as `tgxs002/HPSv2` reads it.

    Prompts: `anime.json`, `concept-art.json`, `paintings.json` and `photo.json`, an array of texts each (of
    `zhwang/HPDv2` on the hub). Name one of them, or their folder for all that it holds, in this order. The tag is the
    style.

    Written: `RUN/STYLE/00000.jpg`, numbered within the style, with the compression that the README of the benchmark
    gets by `image.save` (JPEG of quality 75). `hpsv2.evaluate("RUN", hps_version="v2.1")` reads them.
    """

    name = "hps"
    suffixes = (".json",)
    needs = ("tag", "style_index")
    one_image = True

    def files(self, path: Path) -> list[Path]:
        """The file, or the files of styles that a folder holds."""
        if not path.is_dir():
            return [path]
        return [file for style in STYLES if (file := path / f"{style}.json").is_file()]

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By the name of the file, and texts without keys."""
        return path.stem in STYLES and row.keys() == {"prompt"}

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Adds style and number, from name and order of the file."""
        return {**row, "tag": path.stem, "style_index": place}

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `RUN/STYLE/00000.jpg`."""
        for sample in samples:
            style, number = sample.metadata["tag"], sample.metadata["style_index"]
            write_jpeg(sample.images[0], folder / run / str(style) / f"{number:05d}.jpg")


def write_jpeg(image: Path, path: Path) -> None:
    """Write an image as JPEG, as PIL does by default.

    Args:
        image: A file that PIL reads.
        path: The file to write; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(image) as picture:
        picture.convert("RGB").save(path, format="JPEG")
