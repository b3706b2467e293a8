"""Figures of base, best-of-n and FK steering on the same prompts, with intervals, and the machine they come from."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fklit.report.charts import bootstrap_interval, paired_difference
from fklit.report.reading import RunFolder
from fklit.report.summary import Method, MethodRun

FIGURES = ("reward_mean", "reward_best", "judge_mean", "denoiser_calls", "decodes", "reward_calls", "seconds",
           "unique_roots", "peak_memory_bytes")  # fmt: skip


def compared(best_of_n: RunFolder, fk: RunFolder, *, judged: bool) -> dict[str, Any]:
    """Figures of each method, 95 % intervals over prompts, and paired differences of FK steering to the others.

    Args:
        best_of_n: A run with terminal potential; its samples are those of the base, too.
        fk: The steered run.
        judged: Whether the records have a score "judge".
    """
    names: tuple[Method, ...] = ("base", "best_of_n", "fk")
    methods = {name: MethodRun(name, fk if name == "fk" else best_of_n) for name in names}
    table: dict[str, Any] = {}
    for name, method in methods.items():
        figures = method.figures()
        table[name] = {figure: figures[figure] for figure in FIGURES if figure in figures}
    scores = {"reward": None, **({"judge": "judge"} if judged else {})}
    values = {name: {score: m.per_prompt(key) for score, key in scores.items()} for name, m in methods.items()}
    table["intervals"] = {
        name: {score: [*bootstrap_interval(np.array([*each.values()]))] for score, each in own.items()}
        for name, own in values.items()
    }
    table["fk_less"] = {
        name: {score: [*paired_difference(values["fk"][score], own[score])] for score in scores}
        for name, own in values.items()
        if name != "fk"
    }
    return table


def differences_in_words(metrics: dict[str, Any], labels: dict[Method, str]) -> Sequence[str]:
    """A line for each other method: how much more reward and judge FK steering has.

    Args:
        metrics: With `fk_less`.
        labels: Names of the methods.
    """
    lines = []
    for other, gaps in metrics["fk_less"].items():
        words = [f"{name} {mean:+.3f} [{low:+.3f}, {high:+.3f}]" for name, (mean, low, high) in gaps.items()]
        lines.append(f"FK steering less {labels[other]}: {', '.join(words)}")
    return lines


def hardware() -> dict[str, Any]:
    """The machine."""
    processor = platform.processor() or platform.machine()
    details = Path("/proc/cpuinfo")
    if details.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in details.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "system": platform.platform(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
