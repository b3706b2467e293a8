"""Reading the folder that a run wrote: settings of the run, and what happened for each prompt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fklit.report.record import PromptRecord, floats, parse_record


@dataclass(frozen=True)
class RunFolder:
    """A run: its settings and one record a prompt, sorted by prompt index."""

    path: Path
    settings: Mapping[str, Any]
    records: Mapping[int, PromptRecord]

    @property
    def corrects(self) -> bool:
        """Whether the run corrected guidance, as its records tell by the spread of their steps."""
        return any(record.spread is not None for record in self.records.values())

    def total(self, key: str) -> float | None:
        """Sum over prompts of one budget figure (the maximum for peak memory); None when no prompt has it."""
        values = [value for record in self.records.values() if (value := record.budget.get(key)) is not None]
        if not values:
            return None
        return max(values) if key == "peak_memory_bytes" else sum(values)


def _read_record(folder: Path) -> PromptRecord:
    path = folder / "record.json"
    try:
        record = parse_record(json.loads(path.read_text(encoding="utf-8")), folder)
        extra = folder / "scores.json"
        scores = json.loads(extra.read_text(encoding="utf-8")) if extra.is_file() else {}
        return replace(record, scores={name: floats(values) for name, values in scores.items()})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a record that fklit's prediction writer writes ({type(error).__name__}: {error}); "
            "delete the prompt's folder and run the prompt again."
        ) from error


def read_run(path: Path | str) -> RunFolder:
    """Read every finished prompt of a run; folders without a record (a run that was killed) are passed over.

    Args:
        path: the output folder of the run, holding ``run.json`` and one folder a prompt (``00000``, ``00001``, ...).

    Raises:
        FileNotFoundError: the folder does not exist or holds no finished prompt.
        ValueError: a record cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder; give the output folder of a run.")
    records = [_read_record(file.parent) for file in sorted(path.glob("*/record.json")) if file.parent.name.isdigit()]
    if not records:
        raise FileNotFoundError(f"{path} holds no finished prompt (no */record.json); give the output folder of a run.")
    run_file = path / "run.json"
    settings = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
    return RunFolder(path, settings, {r.prompt_index: r for r in sorted(records, key=lambda r: r.prompt_index)})


def write_scores(run: Path | str, name: str, scores: Mapping[int, Sequence[float]]) -> None:
    """Store a further score of the samples (a judge's, for example) beside the records, for the report to show.

    Args:
        run: output folder of the run.
        name: what the report calls the score.
        scores: prompt index -> one number a sample, in particle order.

    Raises:
        ValueError: a prompt has another number of samples.
    """
    records = read_run(run).records
    for index, values in scores.items():
        record = records[index]
        if len(values) != record.num_particles:
            raise ValueError(
                f"{len(values)} scores were given for prompt {index}, which has {record.num_particles} samples; "
                "give one a sample."
            )
        kept = {key: known.tolist() for key, known in record.scores.items()}
        target = record.folder / "scores.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps({**kept, name: [float(v) for v in values]}), encoding="utf-8")
        partial.replace(target)
