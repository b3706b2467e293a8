"""What `SampleWriter` leaves for the scorers of benchmarks, beside the folders of the prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L

from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.names import BenchmarkName, get_benchmark
from fklit.evaluation.sampled import Samples
from fklit.evaluation.writing import FOLDER, check_samples, write_evaluation

Evaluation = Literal["auto", BenchmarkName] | Benchmark
"""A benchmark, or "auto" for the one that the prompts were read as."""


class EvaluationFolders:
    """The benchmarks that a run writes when its prompts are done.

    Args:
        asked: Benchmarks by name or as objects, or "auto"; one, several, or None.
        samples: Which samples they get.

    Raises:
        ValueError: There is no such benchmark, or it takes one sample only.
    """

    def __init__(self, asked: Evaluation | Sequence[Evaluation] | None, samples: Samples) -> None:
        given: Sequence[Any] = [asked] if isinstance(asked, str | Benchmark) else list(asked or ())
        self.auto = "auto" in given
        self.fixed = [get_benchmark(item) for item in given if item != "auto"]
        self.samples: Samples = samples
        for benchmark in self.fixed:
            check_samples(benchmark, samples)

    def __bool__(self) -> bool:
        return self.auto or bool(self.fixed)

    def benchmarks(self, trainer: L.Trainer) -> list[Benchmark]:
        """What is written: what was named, and for "auto" the benchmark of the prompts, if they are of one."""
        read = getattr(getattr(trainer, "datamodule", None), "benchmark", None) if self.auto else None
        found = {benchmark.name: benchmark for benchmark in (*self.fixed, *([] if read is None else [read]))}
        return list(found.values())

    def folders(self, trainer: L.Trainer, run: Path) -> dict[str, Path]:
        """Folders that are there, by what they are."""
        where = {benchmark.name: run / FOLDER / benchmark.name for benchmark in self.benchmarks(trainer)}
        return {f"for the scorer of {name}": folder for name, folder in where.items() if folder.is_dir()}

    def check(self, trainer: L.Trainer) -> None:
        """Refuse prompts for which a scorer would find nothing, before anything is sampled.

        Args:
            trainer: With the data module of the run.

        Raises:
            ValueError: There are such prompts, or the benchmark takes one sample only.
        """
        for benchmark in self.benchmarks(trainer):
            check_samples(benchmark, self.samples)
            benchmark.check(_metadata(trainer))

    def write(self, trainer: L.Trainer, run: Path) -> None:
        """Write them; on one process, after all have written their prompts.

        Args:
            trainer: With the data module of the run.
            run: Folder of the run.
        """
        if any(run.glob("*/record.json")):  # nothing if every process was idle
            for benchmark in self.benchmarks(trainer):
                write_evaluation(run, benchmark, samples=self.samples, metadata=_metadata(trainer))


def _metadata(trainer: L.Trainer) -> dict[int, Any]:
    """Metadata of the prompts by index, of fklit's data module; empty for others."""
    items = getattr(getattr(trainer, "datamodule", None), "items", ())
    return {item["index"]: item["metadata"] for item in items}
