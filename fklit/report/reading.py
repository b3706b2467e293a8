"""Reading the folder that a run wrote: settings of the run, and what happened for each prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically
from fklit.report.differences import flatten
from fklit.report.record import PromptRecord, floats, parse_record
from fklit.report.versions import old_version


@dataclass(frozen=True)
class RunFolder:
    """A run: its settings and one record per prompt, sorted by prompt index."""

    path: Path
    settings: Mapping[str, Any]
    records: Mapping[int, PromptRecord]

    @property
    def corrects(self) -> bool:
        """Whether the run corrected guidance, as its records show by the log weights of every step."""
        return any(record.log_weight_std is not None for record in self.records.values())

    def total(self, key: str) -> float | None:
        """Sum over prompts of one budget figure (the maximum for peak memory); None when no prompt has it."""
        values = [value for record in self.records.values() if (value := record.budget.get(key)) is not None]
        if not values:
            return None
        return max(values) if key == "peak_memory_bytes" else sum(values)

    def flat_settings(self) -> dict[str, Any]:
        """What `run.json` holds as one level of dotted names."""
        return flatten(self.settings)

    def find_number(self, name: str) -> float | None:
        """The number that the settings hold under a name, at any depth."""
        for key, value in self.flat_settings().items():
            if key.rsplit(".", 1)[-1] == name and isinstance(value, int | float):
                return float(value)
        return None


def _read_record(folder: Path) -> PromptRecord:
    path = folder / "record.json"
    try:
        record = parse_record(json.loads(path.read_text(encoding="utf-8")), folder)
        extra = folder / "scores.json"
        scores = json.loads(extra.read_text(encoding="utf-8")) if extra.is_file() else {}
        return replace(record, scores={name: floats(values) for name, values in scores.items()})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected a record of SampleWriter, got {path} ({type(error).__name__}: {error}); delete the prompt's "
            "folder and run the prompt again."
        ) from error


def read_run(path: Path | str) -> RunFolder:
    """Read every finished prompt of a run; folders without a record (a run that was killed) are skipped.

    Args:
        path: the output folder of the run, holding `run.json` and one folder per prompt (`00000`, `00001`, ...).

    Raises:
        FileNotFoundError: the folder does not exist or holds no finished prompt.
        ValueError: fklit 0.1 wrote it, or a record cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"expected the output folder of a run, got {path}, which is not a folder.")
    run_file = path / "run.json"
    settings = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
    if old := old_version(settings):
        raise ValueError(
            f"expected a run of fklit 0.2 or newer, got {path} of fklit {old}; make its report with fklit {old}, or "
            "run it again into another output_dir."
        )
    finished = [file.parent for file in sorted(path.glob("*/record.json")) if file.parent.name.isdigit()]
    if not finished:
        raise FileNotFoundError(
            f"expected the output folder of a run, got {path}, which holds no finished prompt (no */record.json)."
        )
    records = [_read_record(folder) for folder in finished]
    return RunFolder(path, settings, {r.prompt_index: r for r in sorted(records, key=lambda r: r.prompt_index)})


def write_scores(run: Path | str, name: str, scores: Mapping[int, Sequence[float]]) -> None:
    """Store a further score of the samples (of a metric, for example) beside the records, for the report to show.

    Args:
        run: output folder of the run.
        name: what the report calls the score.
        scores: prompt index -> one number per sample, in particle order; NaN where there is none.

    Raises:
        ValueError: a prompt has another number of samples.
    """
    records = read_run(run).records
    for index, values in scores.items():
        record = records[index]
        if len(values) != record.num_particles:
            raise ValueError(
                f"expected {record.num_particles} scores of prompt {index}, one per sample, got {len(values)}."
            )
        known = {key: _plain(kept.tolist()) for key, kept in record.scores.items()}
        write_json_atomically(record.folder / "scores.json", {**known, name: _plain(values)})


def _plain(values: Sequence[float]) -> list[float | str | None]:
    """Numbers as JSON has them: None for NaN, text for infinities."""
    return [None if v != v else float(v) if abs(v) != float("inf") else str(float(v)) for v in values]
