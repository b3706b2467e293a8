"""Seconds of a steered prompt over those of one unsteered sample: arms alternate, on the same prompts.

On a CPU these are processor seconds of one thread, which other processes disturb little; elsewhere those of a clock.
"""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from steering_cells import Arm, Plan, key, steered

Clock = dict[str, list[list[float]]]  # name of an arm -> in every round its seconds, and those of one unsteered sample


def name_of(arm: Arm) -> str:
    """Name of an arm on disk."""
    return key(arm, "", 0)


def read_clock(folder: Path) -> Clock:
    """What was measured before."""
    path = folder / "stopwatch.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def measured(plan: Plan, folder: Path, models: Any, rounds: int, console: Console) -> Clock:
    """Measure the arms that were not measured before, and return all.

    Args:
        plan: its steered arms are measured on prompts drawn from its own.
        folder: where the cells are.
        models: makes pipeline, reward and judge.
        rounds: of each arm; the first one more, for the caches, does not count.
        console: shows how far it is.
    """
    found = read_clock(folder)
    missing = [arm for arm in plan.arms if arm.scale is not None and len(found.get(name_of(arm), ())) < rounds]
    if not missing:
        return found
    pipeline, reward, _ = models()
    pairs: Clock = {name_of(arm): [] for arm in missing}
    for turn in track(range(rounds + 1), description="rounds of the stopwatch", console=console):
        rng = np.random.default_rng(turn)
        size = min(max(1, plan.rows // min(arm.k for arm in missing)), len(plan.prompts))
        chosen = sorted(rng.choice(len(plan.prompts), size, replace=False).tolist())
        one = _seconds(plan, Arm("unsteered", missing[0].k), turn, chosen, pipeline, reward) / missing[0].k
        for arm in missing[:: 1 if turn % 2 else -1]:
            seconds = _seconds(plan, arm, turn, chosen, pipeline, reward)
            if turn:
                pairs[name_of(arm)].append([seconds, one])
    found |= pairs
    part = folder / "stopwatch.part"
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(part, folder / "stopwatch.json")
    return found


def ratio(pairs: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """Seconds of an arm over those of one unsteered sample, of all rounds together, and the standard error."""
    both = np.asarray(pairs)
    found = float(both[:, 0].sum() / both[:, 1].sum())
    if len(both) < 2:
        return found, None
    rest = both[:, 0] - found * both[:, 1]  # the usual error of a ratio of sums
    return found, float(rest.std(ddof=1) / both[:, 1].mean() / np.sqrt(len(both)))


def _seconds(plan: Plan, arm: Arm, seed: int, chosen: list[int], pipeline: Any, reward: Any) -> float:
    """Seconds of an arm for a prompt, in calls of about as many rows as every other arm's."""
    clock = time.process_time if plan.device == "cpu" else time.perf_counter
    size = max(1, plan.rows // arm.k)
    start = clock()
    for first in range(0, len(chosen), size):
        steered(plan, arm, seed, chosen[first : first + size], pipeline, reward)
    return (clock() - start) / len(chosen)
