"""GenEval: objects, counts, colors and positions, found by a detector."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically
from fklit.evaluation.benchmark import Benchmark, fault, text_of
from fklit.evaluation.sampled import SampledPrompt


class GenEval(Benchmark):
    """GenEval (Ghosh et al. 2023, arXiv:2310.11513), as `djghosh13/geneval` reads and writes it.

    Prompts: `prompts/evaluation_metadata.jsonl`, one object a line with `tag` (the task), `include`, perhaps `exclude`,
    and `prompt`:

    ```json
    {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}],
     "prompt": "a photo of two clocks"}
    ```

    Written: one folder a prompt with `metadata.jsonl` and `samples/0000.png`. `evaluation/evaluate_images.py` scores
    every image of a folder. The folder of a run is of this layout, too, with all K samples of each prompt.
    """

    name = "geneval"
    needs = ("tag", "include")

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By `tag` and `include`."""
        return {"tag", "include"} <= row.keys()

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Checks the task and the objects."""
        text_of(row, "tag", where, "GenEval")
        include = row.get("include")
        if not isinstance(include, list) or not include:
            raise fault(where, "a list of objects under 'include'", include, "GenEval")
        exclude = row.get("exclude", [])
        if not isinstance(exclude, list):
            raise fault(where, "a list of objects under 'exclude'", exclude, "GenEval")
        for entry in (*include, *exclude):
            count = entry.get("count", 1) if isinstance(entry, dict) else None
            if type(count) is not int or count < 1 or not isinstance(entry.get("class"), str):
                raise fault(where, "objects with 'class' (a text) and 'count' (1 or more)", entry, "GenEval")
        for earlier, entry in enumerate(include):
            if "position" in entry and not _is_position(entry["position"], earlier):
                expected = "'position' as [relation, number of an earlier object]"
                raise fault(where, expected, entry["position"], "GenEval")
        return row

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `00000/metadata.jsonl` and `00000/samples/0000.png` of each prompt."""
        for sample in samples:
            place = folder / f"{sample.index:05d}"
            (place / "samples").mkdir(parents=True)
            write_json_atomically(place / "metadata.jsonl", dict(sample.metadata))
            for slot, image in enumerate(sample.images):
                shutil.copyfile(image, place / "samples" / f"{slot:04d}.png")


def _is_position(given: object, earlier: int) -> bool:
    if not isinstance(given, list) or len(given) != 2:
        return False
    return isinstance(given[0], str) and type(given[1]) is int and 0 <= given[1] < earlier
