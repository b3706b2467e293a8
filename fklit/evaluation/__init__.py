"""Benchmarks of text-to-image models: prompts in their published formats, and samples as their scorers read them."""

from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.drawbench import DrawBench
from fklit.evaluation.evalscope import EvalScope
from fklit.evaluation.geneval import GenEval
from fklit.evaluation.geneval2 import GenEval2
from fklit.evaluation.hps import HPSBenchmark
from fklit.evaluation.image_reward import ImageRewardBenchmark
from fklit.evaluation.names import BenchmarkName, get_benchmark
from fklit.evaluation.parti import PartiPrompts
from fklit.evaluation.sampled import SampledPrompt
from fklit.evaluation.seeds import SeedFigure, over_seeds
from fklit.evaluation.writing import write_evaluation

__all__ = [
    "Benchmark",
    "BenchmarkName",
    "DrawBench",
    "EvalScope",
    "GenEval",
    "GenEval2",
    "HPSBenchmark",
    "ImageRewardBenchmark",
    "PartiPrompts",
    "SampledPrompt",
    "SeedFigure",
    "get_benchmark",
    "over_seeds",
    "write_evaluation",
]
