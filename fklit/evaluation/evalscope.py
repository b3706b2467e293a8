"""The JSON lines of evalscope, which scores images by PickScore, HPS, ImageReward, VQAScore and others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fklit.atomic import write_text_atomically
from fklit.evaluation.benchmark import Benchmark, fault
from fklit.evaluation.sampled import SampledPrompt


class EvalScope(Benchmark):
    """JSON lines of `modelscope/evalscope` (`docs/en/user_guides/aigc/t2i.md`, `Text2ImageAdapter`).

    Prompts: one object a line with `prompt`, and perhaps `id`, `category`, `tags` and `image_path`. The tag is
    `category`, or `tags.category` as in its `hpdv2`.

    Written: `RUN.jsonl`, a line an image with `id`, `prompt`, `image_path` and, if there is a tag, `category`, by which
    evalscope reports means. It is the `dataset_id` of its `general_t2i`, or of `genai_bench`, `hpdv2`, `evalmuse` and
    `tifa160` if the prompts are theirs. Paths are absolute: write them again after moving the folder of the run.
    """

    name = "evalscope"
    unique = "id"

    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """By `image_path`, which its files have even where no image is there yet."""
        return "image_path" in row

    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Finds the category."""
        if "id" in row and (isinstance(row["id"], bool) or not isinstance(row["id"], str | int) or row["id"] == ""):
            raise fault(where, "a text or whole number under 'id'", repr(row["id"]), "evalscope")
        if not isinstance(row.get("image_path", ""), str):
            raise fault(where, "a path under 'image_path'", repr(row["image_path"]), "evalscope")
        tags = row.get("tags")
        category = row.get("category") or (tags.get("category") if isinstance(tags, dict) else None)
        if category is None or category == "":
            return row
        if not isinstance(category, str):
            raise fault(where, "a text under 'category'", repr(category), "evalscope")
        return {**row, "tag": category}

    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Writes `RUN.jsonl`."""
        write_lines(samples, folder / f"{run}.jsonl")


def write_lines(samples: Sequence[SampledPrompt], path: Path) -> None:
    """Write the lines that evalscope reads.

    Args:
        samples: The prompts with their images; several images of a prompt get `id` with their number.
        path: The file.
    """
    lines = []
    for sample in samples:
        known = {key: value for key, value in sample.metadata.items() if key not in ("tag", "image_path")}
        name = known.get("id", sample.index)
        if "tag" in sample.metadata:
            known["category"] = sample.metadata["tag"]
        for slot, image in enumerate(sample.images):
            own = name if len(sample.images) == 1 else f"{name}_{slot}"
            lines.append(json.dumps({**known, "id": own, "image_path": str(image)}, ensure_ascii=False))
    write_text_atomically(path, "\n".join(lines) + "\n")
