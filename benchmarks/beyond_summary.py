"""Figures of `benchmarks/beyond.py`: differences at equal calls and equal seconds, and Z against the pool's."""

import math
from typing import Any

import numpy as np
from full_size_costs import equal_n
from steering_cells import Arm, Plan, key
from steering_methods import SEARCHES
from steering_stopwatch import Clock, name_of, ratio
from steering_summary import Values, difference, fk_values, numbers, values_of_pools, with_rewards

_FIGURES = (("reward", "reward_best"), ("judge", "judge"))


def calls(cell: dict[str, Any]) -> float:
    """Denoiser calls of a cell; the way back of a gradient costs as much as two."""
    return float(cell["denoiser_calls"] + 2 * cell.get("gradient_calls", 0))


def of_target(pool: list[dict[str, Any]], scale: float) -> tuple[dict[str, float], dict[str, float]]:
    """By prompt: Z and the judge under the target `p(x) exp(scale r)`, self-normalized over the pool of all seeds.

    Prompts of which no sample has a reward are left out.
    """
    by_prompt: dict[str, tuple[list[float], list[float]]] = {}
    for cell in pool:
        rewards, judged = by_prompt.setdefault(cell["prompt"], ([], []))
        rewards += numbers(cell["rewards"]).tolist()
        judged += cell["judge"]
    z, judge = {}, {}
    for prompt, (rewards, judged) in by_prompt.items():
        logs = np.where(np.isnan(rewards), -np.inf, scale * np.array(rewards))  # without a reward it dies
        if not np.isfinite(logs).any():
            continue
        weights = np.exp(logs - logs.max())
        z[prompt] = float(np.exp(logs).mean())
        judge[prompt] = float(np.dot(weights, judged) / weights.sum())
    return z, judge


def summarize(
    plan: Plan,
    cells: dict[str, dict[str, Any]],
    clock: Clock,
    full_size: dict[str, dict[str, float]],
    method: str,
) -> dict[str, Any]:
    """Rows of all arms, and the headline of the chosen method at the smallest K.

    Args:
        plan: arms, prompts and seeds; its first arm is the pool.
        cells: of all of them.
        clock: by arm, its seconds for a prompt and those of one unsteered sample, in every round.
        full_size: by model, what `full_size_costs.costs` gives.
        method: the chosen one.
    """
    by_arm = {arm: [cells[key(arm, p.text, s)] for p in plan.prompts for s in plan.seeds] for arm in plan.arms}
    pool_arm = plan.arms[0]
    pool = by_arm[pool_arm]
    each_calls = float(np.mean([calls(cell) for cell in pool])) / pool_arm.k
    rows = [
        _row(arm, by_arm[arm], pool, each_calls, clock[name_of(arm)], plan.steps, full_size) for arm in plan.arms[1:]
    ]
    chosen = next(row for row in rows if row["method"] == method)
    sequential = {row["k"]: row for row in rows if row["method"] == "sequential"}
    for row in rows:
        rival = sequential.get(row["k"])
        if rival is not None and row is not rival:
            pairs = [{(c["prompt"], c["seed"]): fk_values(c) for c in by_arm[r["arm"]]} for r in (row, rival)]
            row["less_sequential"] = {f: _short(difference(*pairs, name)) for f, name in _FIGURES}
    for row in rows:
        del row["arm"]
    headline = {
        name: {figure: chosen[name][figure] for figure, _ in _FIGURES} for name in ("equal_calls", "equal_seconds")
    }
    return {
        "summary": {**headline, "method": method or "difference"},
        "rows": rows,
        "base": {
            name: float(np.mean([v[name] for v in values_of_pools(pool, 1).values()]))
            for name in ("reward_mean", "judge_mean")
        },
        "best_of_n": {
            str(n): {f: float(np.mean([v[name] for v in values_of_pools(pool, n).values()])) for f, name in _FIGURES}
            for n in (1, 2, 4, 8, 16)
            if n <= pool_arm.k
        },
        "pools_without_a_reward": len(pool) - len(with_rewards(pool)),
    }


def _short(gap: dict[str, Any]) -> list[float]:
    return [gap["mean"], gap["low"], gap["high"]]


def _row(
    arm: Arm,
    ours: list[dict[str, Any]],
    pool: list[dict[str, Any]],
    calls_each: float,
    pairs: list[list[float]],
    steps: int,
    full_size: dict[str, dict[str, float]],
) -> dict[str, Any]:
    values: Values = {(c["prompt"], c["seed"]): fk_values(c) for c in ours}
    measured = {
        "equal_calls": float(np.mean([calls(c) for c in ours])) / calls_each,
        "equal_seconds": ratio(pairs)[0],
    }
    row: dict[str, Any] = {
        "arm": arm,
        "method": arm.method,
        "k": arm.k,
        "scale": arm.scale,
        "samples_target": arm.method not in SEARCHES,
        **{f: float(np.mean([v[name] for v in values.values()])) for f, name in _FIGURES},
        "judge_of_population": float(np.mean([v["judge_mean"] for v in values.values()])),
        "reward_calls": float(np.mean([c["reward_calls"] for c in ours])),
        "unique_roots": float(np.mean([v["unique_roots"] for v in values.values()])),
        "resamplings": float(np.mean([c["resampled"] for c in ours])),
    }
    row["seconds_standard_error"] = ratio(pairs)[1]
    for name, cost in measured.items():
        n = max(1.0, cost)
        if math.ceil(n) > pool[0]["k"]:
            raise SystemExit(f"{name} of {arm.name} means best of {n:.1f}, the pool has {pool[0]['k']}; raise --pool.")
        row[name] = {"n": n, **_against(values, pool, n), "rounded_up": _against(values, pool, math.ceil(n - 1e-6))}
    row["equal_seconds_model"] = {}
    for title, unit in full_size.items():
        n = max(1.0, float(np.mean([equal_n(c, calls(c) / calls_each, steps, unit) for c in ours])))
        row["equal_seconds_model"][title] = {"n": n, **_against(values, pool, n)}
    if arm.method not in SEARCHES:
        assert arm.scale is not None
        row["target"] = _against_target(ours, pool, arm.scale)
    return row


def _against(values: Values, pool: list[dict[str, Any]], n: float) -> dict[str, list[float]]:
    """Differences to best of n."""
    rival = values_of_pools(pool, n)
    return {figure: _short(difference(values, rival, name)) for figure, name in _FIGURES}


def _against_target(ours: list[dict[str, Any]], pool: list[dict[str, Any]], scale: float) -> dict[str, Any]:
    """Mean of Z, and the judge of weighted particles, beside the pool's."""
    z, judge = of_target(pool, scale)
    made = {
        (c["prompt"], c["seed"]): {"z": _exp(c.get("log_z")), "judge": fk_values(c)["judge_mean"]}
        for c in ours
        if c["prompt"] in z
    }
    wanted = {cell: {"z": z[cell[0]], "judge": judge[cell[0]]} for cell in made}
    known = all(math.isfinite(v["z"]) for v in made.values())  # cells of older runs have no log Z
    return {
        "z": float(np.mean([v["z"] for v in made.values()])) if known else None,
        "z_of_pool": float(np.mean(list(z.values()))),
        "z_less_pool": _short(difference(made, wanted, "z")) if known else None,
        "judge_of_pool": float(np.mean(list(judge.values()))),
        "judge_less_pool": _short(difference(made, wanted, "judge")),
    }


def _exp(log_z: float | None) -> float:
    return math.nan if log_z is None else math.exp(log_z)
