"""The benchmarks by name, and which of them a file is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fklit.checks import check_choice
from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.drawbench import DrawBench
from fklit.evaluation.evalscope import EvalScope
from fklit.evaluation.geneval import GenEval
from fklit.evaluation.geneval2 import GenEval2
from fklit.evaluation.hps import HPSBenchmark
from fklit.evaluation.image_reward import ImageRewardBenchmark
from fklit.evaluation.parti import PartiPrompts

BenchmarkName = Literal["geneval", "geneval2", "evalscope", "hps", "image_reward", "drawbench", "parti"]
"""Names of the benchmarks that ship."""

BENCHMARKS: tuple[Benchmark, ...] = (
    GenEval(),
    GenEval2(),
    EvalScope(),
    HPSBenchmark(),
    ImageRewardBenchmark(),
    DrawBench(),
    PartiPrompts(),
)
"""The benchmarks that ship."""


def get_benchmark(name: BenchmarkName | Benchmark) -> Benchmark:
    """The benchmark of a name; a `Benchmark` is returned as it is.

    Args:
        name: "geneval", "geneval2", "evalscope", "hps", "image_reward", "drawbench", "parti", or a benchmark.

    Raises:
        ValueError: There is none of that name.
    """
    if isinstance(name, Benchmark):
        return name
    table = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    check_choice("benchmark", name, tuple(table))
    return table[name]


def recognize(path: Path, row: Mapping[str, Any]) -> Benchmark | None:
    """The benchmark that a file of prompts is of; None if it is of none that ships.

    Args:
        path: The file.
        row: Its first entry, a text without keys under `"prompt"`.

    Raises:
        ValueError: It may be of several.
    """
    fitting = [
        benchmark
        for benchmark in BENCHMARKS
        if path.suffix.lower() in benchmark.suffixes and benchmark.recognizes(path, row)
    ]
    if len(fitting) > 1:
        names = " and of ".join(benchmark.name for benchmark in fitting)
        raise ValueError(
            f"{path}: expected prompts of one benchmark, got a first entry that may be of {names}; set `format` to "
            "one of these, or to plain."
        )
    return fitting[0] if fitting else None


def check_name(path: str | Path, benchmark: Benchmark) -> None:
    """Refuse a file of another ending than those of the benchmark.

    Args:
        path: The file.
        benchmark: What it should be of.

    Raises:
        ValueError: It has another one.
    """
    if Path(path).suffix.lower() not in benchmark.suffixes:
        raise ValueError(
            f"expected a file of {benchmark.name} in {' or '.join(benchmark.suffixes)}, got {path}; give such a file, "
            "or set `format` to what it is."
        )
