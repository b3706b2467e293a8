"""GenEval 2: questions about every part of a prompt, answered by a vision-language model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically, write_text_atomically
from fklit.evaluation.benchmark import Benchmark, fault
from fklit.evaluation.sampled import SampledPrompt


class GenEval2(Benchmark):
    """GenEval 2 (Kamath et al. 2025, arXiv:2512.16853), as `facebookresearch/GenEval2` reads it.

    Prompts: `geneval2_data.jsonl`, one object a line with `prompt`, `vqa_list` (the questions, which
    `fklit.rewards.SoftTIFA` reads, too), `atom_count` and `skills` (one a question). The tag is "atoms_3" to
    "atoms_10", as the benchmark reports. Its data are under CC BY-NC 4.0 and no part of fklit: name your copy.

    Written: `images.json`, which maps each prompt to the path of its image, and `geneval2_data.jsonl` with the prompts
    of this run, since the scorer stops at a prompt without an image. `evaluation.py --benchmark_data ...
    --image_filepath_data ...` reads them. Paths are absolute: write them again after moving the folder of the run.
    """

    name = "geneval2"
    unique = "prompt"
    needs = ("vqa_list",)
    one_image = True

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By `vqa_list`."""
        return "vqa_list" in row

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Checks the questions; `atom_count` and `skills` may be missing, as in questions of your own."""
        pairs, skills, atoms = row.get("vqa_list"), row.get("skills"), row.get("atom_count")
        if not isinstance(pairs, list) or not pairs or not all(_is_pair(pair) for pair in pairs):
            raise fault(where, "[[question, answer], ...] under 'vqa_list'", pairs, "GenEval 2")
        if "skills" in row and (
            not isinstance(skills, list)
            or len(skills) != len(pairs)
            or not all(isinstance(skill, str) for skill in skills)
        ):
            raise fault(where, f"{len(pairs)} texts under 'skills', one a question", skills, "GenEval 2")
        if "atom_count" not in row:
            return row
        if type(atoms) is not int or atoms < 1:
            raise fault(where, "a number of at least 1 under 'atom_count'", repr(atoms), "GenEval 2")
        return {**row, "tag": f"atoms_{atoms}"}

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `images.json` and `geneval2_data.jsonl`."""
        write_json_atomically(
            folder / "images.json", {sample.prompt: str(sample.images[0]) for sample in samples}, indent=1
        )
        lines = [json.dumps(dict(sample.metadata), ensure_ascii=False) for sample in samples]
        write_text_atomically(folder / "geneval2_data.jsonl", "\n".join(lines) + "\n")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
