"""What a run sampled, as benchmarks want it: each prompt with its metadata and the files of its images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fklit.checks import check_choice

Samples = Literal["chosen", "all"]
"""Which samples of a prompt are evaluated: the one that the method chose, or all K."""


@dataclass(frozen=True)
class SampledPrompt:
    """One prompt and its images.

    Attributes:
        index: Place of the prompt in its list.
        metadata: Its metadata, with `"prompt"`.
        images: Absolute paths of PNG files: of the chosen sample, or of all in particle order.
    """

    index: int
    metadata: Mapping[str, Any]
    images: tuple[Path, ...]

    @property
    def prompt(self) -> str:
        """The text."""
        return str(self.metadata["prompt"])


def read_samples(
    run: Path, samples: Samples = "chosen", metadata: Mapping[int, Mapping[str, Any]] | None = None
) -> list[SampledPrompt]:
    """Read what `SampleWriter` wrote.

    Args:
        run: Output folder of the run.
        samples: "chosen" for the sample with the highest reward (without a reward, one draw by weight), or "all".
        metadata: Of prompts by index, in place of what lies in the folder.

    Returns:
        The finished prompts, by index.

    Raises:
        FileNotFoundError: The folder holds no finished prompt.
        ValueError: It holds videos or audio, or a record that cannot be read.
    """
    from fklit.report.reading import read_run

    check_choice("samples", samples, ("chosen", "all"))
    found = []
    for index, record in read_run(run).records.items():
        if record.modality != "image":
            raise ValueError(
                f"expected images to evaluate, got {record.modality} in {record.folder}; benchmarks of text-to-image "
                "models take images only."
            )
        slots = range(record.num_particles) if samples == "all" else [record.chosen]
        images = tuple((record.folder / "samples" / f"{slot:04d}.png").absolute() for slot in slots)
        known = (metadata or {}).get(index)
        if known is None:
            known = json.loads((record.folder / "metadata.jsonl").read_text(encoding="utf-8"))
        found.append(SampledPrompt(index, {**known, "prompt": record.prompt}, images))
    return found
