"""The benchmark of ImageReward: 100 prompts of DiffusionDB, and the 466 of its test set."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically
from fklit.evaluation.benchmark import Benchmark, fault, text_of
from fklit.evaluation.sampled import SampledPrompt

_PUBLISHED_ID = re.compile(r"\d{6}-\d{4}")
_FILE_NAME = re.compile(r"[\w.-]+")


class ImageRewardBenchmark(Benchmark):
    """The benchmark of ImageReward (Xu et al. 2023, arXiv:2304.05977), as `THUDM/ImageReward` reads it.

    Prompts: `benchmark/benchmark-prompts.json` (the 100 of FK steering's table 1) or `data/test.json`, an array of
    objects with `id` and `prompt`; other keys are kept. There are no tags.

    Written: `prompts.json` with id and prompt of this run, and `generations/RUN/ID_0.png`. `test-benchmark.py
    --prompts_path prompts.json --img_dir generations --model RUN` reads them; several samples of a prompt count by
    their mean.
    """

    name = "image_reward"
    suffixes = (".json",)
    unique = "id"
    needs = ("id",)

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By the form of its ids, such as "005695-0057"."""
        return "prompt" in row and _PUBLISHED_ID.fullmatch(str(row.get("id"))) is not None

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Checks the id, which names files."""
        if not _FILE_NAME.fullmatch(text_of(row, "id", where, "ImageReward's benchmark")):
            expected = "letters, digits, '-', '_' and '.' under 'id', which names files"
            raise fault(where, expected, repr(row["id"]), "ImageReward's benchmark")
        return row

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `prompts.json` and `generations/RUN/ID_0.png`, with nothing beside: the scorer counts files."""
        images = folder / "generations" / run
        images.mkdir(parents=True)
        rows = [{"id": sample.metadata["id"], "prompt": sample.prompt} for sample in samples]
        write_json_atomically(folder / "prompts.json", rows, indent=4)
        for sample in samples:
            for slot, image in enumerate(sample.images):
                shutil.copyfile(image, images / f"{sample.metadata['id']}_{slot}.png")
