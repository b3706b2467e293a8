"""From the cells of `benchmarks/steering.py` to means, paired differences and their intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from steering_cells import Arm, Plan, key

from fklit.report.charts import bootstrap_interval


def numbers(rewards: Sequence[float | None]) -> np.ndarray:
    """Rewards with NaN for what has none; records have None there."""
    return np.array([math.nan if reward is None else reward for reward in rewards])


def best_of(n: int, rewards: Sequence[float | None], values: Sequence[float]) -> float:
    """Mean, over all subsets of size n of the pool, of the value of the subset's sample with the highest reward.

    A sample without a reward (NaN, or None in records) is in the subsets, as it was paid for, and is never chosen;
    subsets of such samples only choose none and do not count.

    Raises:
        ValueError: If n is not from 1 to the size of the pool, or no sample has a reward.
    """
    size, given = len(rewards), numbers(rewards)
    scored = int((~np.isnan(given)).sum())
    if not 1 <= n <= size:
        raise ValueError(f"expected n from 1 to {size}, the size of the pool, got n={n}; raise --pool.")
    if not scored:
        raise ValueError(f"expected a reward of at least one of {size} samples, got none; leave out the pool.")
    order = np.argsort(-given, kind="stable")[:scored]  # NaN sorts last
    total = math.comb(size, n)
    chances = np.array([math.comb(size - 1 - rank, n - 1) / total for rank in range(scored)])
    return float(np.dot(chances / chances.sum(), np.asarray(values, dtype=float)[order]))


def fk_values(cell: dict[str, Any]) -> dict[str, float]:
    """Figures of a steered cell."""
    return {
        "reward_best": cell["rewards"][cell["best"]],
        "judge": cell["judge"][cell["best"]],
        "reward_mean": float(np.dot(cell["weights"], np.nan_to_num(numbers(cell["rewards"])))),  # NaN has weight 0
        "judge_mean": float(np.dot(cell["weights"], cell["judge"])),
        "unique_roots": cell["unique_roots"],
    }


def pool_values(cell: dict[str, Any], n: float) -> dict[str, float]:
    """Figures of best-of-n from a pool; between two integers those of both, mixed so that the mean n is this one.

    `reward_mean` is over the samples that have a reward, `judge_mean` over all.
    """
    if n != int(n):
        less, more = pool_values(cell, math.floor(n)), pool_values(cell, math.ceil(n))
        return {name: less[name] + (n - math.floor(n)) * (more[name] - less[name]) for name in less}
    n = int(n)
    return {
        "reward_best": best_of(n, cell["rewards"], cell["rewards"]),
        "judge": best_of(n, cell["rewards"], cell["judge"]),
        "reward_mean": float(np.nanmean(numbers(cell["rewards"]))),
        "judge_mean": float(np.mean(cell["judge"])),
        "unique_roots": float(n),
    }


Values = dict[tuple[str, int], dict[str, float]]  # (prompt, seed) -> figures


def with_rewards(pool: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pools of which at least one sample has a reward: from the others there is nothing to choose."""
    return [cell for cell in pool if not np.isnan(numbers(cell["rewards"])).all()]


def values_of_pools(pool: Sequence[dict[str, Any]], n: float) -> Values:
    """`pool_values` by prompt and seed, without the pools of which no sample has a reward."""
    return {(cell["prompt"], cell["seed"]): pool_values(cell, n) for cell in with_rewards(pool)}


def difference(ours: Values, theirs: Values, figure: str, other: str | None = None) -> dict[str, Any]:
    """Mean paired difference with its interval over prompts."""
    shared = sorted(set(ours) & set(theirs))
    by_prompt: dict[str, list[float]] = {}
    for cell in shared:
        by_prompt.setdefault(cell[0], []).append(ours[cell][figure] - theirs[cell][other or figure])
    means = np.array([np.mean(gaps) for gaps in by_prompt.values()])
    low, high = bootstrap_interval(means)
    return {"mean": float(means.mean()), "low": low, "high": high, "prompts": len(means), "cells": len(shared)}


def best_of_n(pool: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge of best-of-n for growing n, and what searching four times as much as n = 8 changes."""
    values = {n: values_of_pools(pool, n) for n in (1, 2, 4, 8, 16, 32) if pool and n <= pool[0]["k"]}
    found: dict[str, Any] = {
        "judge": {str(n): float(np.mean([v["judge"] for v in at.values()])) for n, at in values.items()}
    }
    if 32 in values:
        found["judge, 32 less 8"] = difference(values[32], values[8], "judge")
    return found


def summarize(plan: Plan, cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means of every arm and paired differences of the steered arms."""
    by_arm: dict[Arm, list[dict[str, Any]]] = {arm: [] for arm in plan.arms}
    for arm in plan.arms:
        for prompt in plan.prompts:
            for seed in plan.seeds:
                cell = cells.get(key(arm, prompt.text, seed))
                if cell is not None:
                    by_arm[arm].append(cell)
    pools = {arm.name: arm for arm in plan.arms if arm.scale is None}
    main_pool = pools["unsteered"]
    held_out = {prompt.text for prompt in plan.prompts if prompt.held_out}

    def values(arm: Arm, n: int | None = None) -> Values:
        if n is not None:
            return values_of_pools(by_arm[arm], n)
        return {(c["prompt"], c["seed"]): fk_values(c) for c in by_arm[arm]}

    rows = []
    for arm in plan.arms:
        if arm.scale is None:
            continue
        ours, base = values(arm), values(main_pool, 1)
        rivals = {"best_of_n, equal denoiser calls": values(main_pool, arm.k)}
        if "unsteered_eta0" in pools:
            rivals["best_of_n, deterministic sampler"] = values(pools["unsteered_eta0"], arm.k)
        figures = {name: float(np.mean([v[name] for v in ours.values()])) for name in next(iter(ours.values()))}
        row: dict[str, Any] = {
            "arm": asdict(arm),
            "fk": figures,
        }
        row["resamplings"] = float(np.mean([cell["resampled"] for cell in by_arm[arm]]))
        row["base"] = {name: float(np.mean([v[name] for v in base.values()])) for name in ("reward_mean", "judge_mean")}
        row["fk - base"] = {
            "reward_best": difference(ours, base, "reward_best", "reward_mean"),
            "judge": difference(ours, base, "judge", "judge_mean"),
            "reward_mean": difference(ours, base, "reward_mean"),
            "judge_mean": difference(ours, base, "judge_mean"),
        }
        for label, theirs in rivals.items():
            row[label] = {f: float(np.mean([v[f] for v in theirs.values()])) for f in ("reward_best", "judge")}
            row[f"fk - {label}"] = {figure: difference(ours, theirs, figure) for figure in ("reward_best", "judge")}
        for name, wanted in (("held-out pairs", True), ("other prompts", False)):
            subset = {cell: v for cell, v in ours.items() if (cell[0] in held_out) == wanted}
            if subset:
                row[f"{name}: fk - best_of_n, equal denoiser calls"] = {
                    figure: difference(subset, rivals["best_of_n, equal denoiser calls"], figure)
                    for figure in ("reward_best", "judge")
                }
        rows.append(row)
    headline = {
        f"K{row['arm']['k']}": {
            figure: [row["fk - best_of_n, equal denoiser calls"][name][end] for end in ("mean", "low", "high")]
            for figure, name in (("judge", "judge"), ("reward", "reward_best"))
        }
        for row in rows
        if row["arm"]["name"] == "fk"
    }
    summary = {"fk_less_best_of_n": headline, "best_of_n": best_of_n(by_arm[main_pool])}
    without = len(by_arm[main_pool]) - len(with_rewards(by_arm[main_pool]))
    return {
        "summary": summary,
        "rows": rows,
        "pools_without_a_reward": without,
        "cells": sum(len(found) for found in by_arm.values()),
    }
