"""Writes what the scorer of a benchmark reads, from the folder of a run."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fklit.atomic import make_folder
from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.names import BenchmarkName, get_benchmark
from fklit.evaluation.sampled import Samples, read_samples

FOLDER = "evaluation"
"""Where in the folder of a run the benchmarks are."""


def write_evaluation(
    run: str | Path,
    benchmark: BenchmarkName | Benchmark,
    *,
    samples: Samples = "chosen",
    metadata: Mapping[int, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the samples of a run as the scorer of a benchmark reads them.

    What `SampleWriter(evaluation=...)` does at the end of `predict`, for a run that is there already. The folder
    appears complete or not at all, and replaces an older one.

    Args:
        run: Output folder of the run.
        benchmark: Its name, or a `Benchmark`.
        samples: "chosen" for the sample of each prompt that the method chose, "all" for all K, for benchmarks that take
            several.
        metadata: Of prompts by index, in place of what lies in the folder.

    Returns:
        The folder `RUN/evaluation/NAME`.

    Raises:
        FileNotFoundError: The run has no finished prompt.
        ValueError: The samples are no images, the benchmark takes one a prompt, or the prompts lack what it needs.
    """
    run, benchmark = Path(run), get_benchmark(benchmark)
    check_samples(benchmark, samples)
    found = read_samples(run, samples, metadata)
    benchmark.check({sample.index: sample.metadata for sample in found})
    target = run / FOLDER / benchmark.name
    part = target.with_name(f".{benchmark.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    benchmark.write(found, part, run=run.absolute().name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    return target


def check_samples(benchmark: Benchmark, samples: Samples) -> None:
    """Refuse all samples of a prompt where the scorer takes one.

    Args:
        benchmark: The benchmark.
        samples: "chosen" or "all".

    Raises:
        ValueError: It does.
    """
    if benchmark.one_image and samples == "all":
        raise ValueError(
            f"expected evaluation_samples 'chosen' with {benchmark.name}, whose scorer takes one image a prompt, got "
            "'all'; set 'chosen'."
        )
