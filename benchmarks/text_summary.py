"""Figures of `benchmarks/text.py`: exact best-of-n over a pool, paired differences, distinct n-grams."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from text_cells import Arm, Plan, label

from fklit.report.charts import paired_difference


def best_of_n(rewards: Sequence[float], values: Sequence[float], n: int) -> float:
    """Mean of `values` at the best of n by `rewards`, over all subsets of size n of the pool."""
    order = np.argsort(-np.asarray(rewards), kind="stable")
    size, total = len(order), math.comb(len(order), n)
    # The i-th best is the best of a subset whose other members are all worse.
    chances = [math.comb(size - 1 - i, n - 1) / total for i in range(size)]
    return float(np.dot(chances, np.asarray(values)[order]))


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams, words split at spaces."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan


def by_prompt(cells: Sequence[dict[str, Any]], values: Sequence[float]) -> dict[int, float]:
    """Mean over continuations and seeds of each prompt: prompts are what counts as independent."""
    names = sorted({cell["prompt"] for cell in cells})
    rows: dict[str, list[float]] = {name: [] for name in names}
    for cell, value in zip(cells, values, strict=True):
        rows[cell["prompt"]].append(value)
    return {number: float(np.mean(rows[name])) for number, name in enumerate(names)}


def summarize(plan: Plan, cells: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    """All figures; differences are [mean, low, high] with 95 % intervals by bootstrap over prompts."""
    pool = cells[("pool", "base")]
    each = float(np.mean([cell["denoiser_calls"] for cell in pool])) / plan.arms[0].k
    steered = [arm for arm in plan.arms if arm.name != "pool"]
    table: dict[str, Any] = {}
    for attribute in plan.attributes:
        name = attribute.name
        rows: dict[str, Any] = {"base": _row(pool, [float(np.mean(c["guide"][name])) for c in pool], name, None)}
        for arm in steered:
            rows[label(arm)] = _arm(arm, cells[(label(arm), name)], pool, name, each)
        for n in (n for n in (4, 8) if n <= len(pool[0]["texts"])):
            values = [best_of_n(c["guide"][name], c["guide"][name], n) for c in pool]
            rows[f"best of {n}"] = _row(pool, values, name, n)
        table[name] = rows
    return {"calls_per_text": each, "table": table, "summary": _headline(plan, table)}


def _row(pool: list[dict[str, Any]], guide: list[float], name: str, n: int | None) -> dict[str, Any]:
    """Of the pool: the mean over its texts, or exact best-of-n."""
    judged = name in pool[0]["judge"]
    judge = [
        float(np.mean(c["judge"][name])) if n is None else best_of_n(c["guide"][name], c["judge"][name], n)
        for c in pool
        if judged
    ]
    # Distinct n-grams are of one text a run, as of the other arms.
    texts = [c["texts"][0 if n is None else int(np.argmax(c["guide"][name][:n]))] for c in pool]
    size = len(pool[0]["texts"])
    used = 1 if n is None else n
    return {
        "guide": float(np.mean(guide)),
        "judge": float(np.mean(judge)) if judge else None,
        "denoiser_calls": float(np.mean([c["denoiser_calls"] for c in pool])) * used / size,
        "seconds": float(np.mean([c["seconds"] for c in pool])) * used / size,
        **{f"distinct_{i}": distinct(texts, i) for i in (1, 2, 3)},
        "seeds": _over_seeds(pool, guide),
        **_accepted(pool, name, n),
    }


def _accepted(pool: list[dict[str, Any]], name: str, n: int | None) -> dict[str, float]:
    """Share of texts that the grammar explains wholly, of acceptability."""
    if name != "acceptability":
        return {}
    whole = [[float(score == 0) for score in c["guide"][name]] for c in pool]
    if n is not None:
        return {
            "accepted": float(np.mean([best_of_n(c["guide"][name], w, n) for c, w in zip(pool, whole, strict=True)]))
        }
    return {"accepted": float(np.mean(whole))}


def _arm(arm: Arm, cells: list[dict[str, Any]], pool: list[dict[str, Any]], name: str, each: float) -> dict[str, Any]:
    """Of a steered arm, with differences to the base and to best-of-n of as many denoiser calls."""
    guide = [c["guide"][name][c["chosen"]] for c in cells]
    calls = float(np.mean([c["denoiser_calls"] for c in cells]))
    # Rounded up, and not below K: in doubt for the other side.
    n = min(max(arm.k, math.ceil(calls / each)), len(pool[0]["texts"]))
    ours = by_prompt(cells, guide)
    equal = by_prompt(pool, [best_of_n(c["guide"][name], c["guide"][name], n) for c in pool])
    base = by_prompt(pool, [float(np.mean(c["guide"][name])) for c in pool])
    found: dict[str, Any] = {
        "guide": float(np.mean(guide)),
        "judge": None,
        "denoiser_calls": calls,
        "reward_calls": float(np.mean([c["reward_calls"] for c in cells])),
        "seconds": float(np.mean([c["seconds"] for c in cells])),
        "roots": float(np.mean([c["roots"] for c in cells])),
        "equal_n": n,
        "capped": math.ceil(calls / each) > len(pool[0]["texts"]),
        "less_best_of_n": [*paired_difference(ours, equal)],
        "less_base": [*paired_difference(ours, base)],
        "per_prompt": {"less_best_of_n": _gaps(ours, equal)},
        **{f"distinct_{i}": distinct([c["texts"][c["chosen"]] for c in cells], i) for i in (1, 2, 3)},
        "seeds": _over_seeds(cells, guide),
    }
    if name == "acceptability":
        found["accepted"] = float(np.mean([score == 0 for score in guide]))
    if name in pool[0]["judge"]:
        judged = [c["judge"][name][c["chosen"]] for c in cells]
        found["judge"] = float(np.mean(judged))
        mine = by_prompt(cells, judged)
        judged_base = by_prompt(pool, [float(np.mean(c["judge"][name])) for c in pool])
        found["judge_less_base"] = [*paired_difference(mine, judged_base)]
        found["per_prompt"]["judge_less_base"] = _gaps(mine, judged_base)
        found["judge_less_best_of_n"] = [
            *paired_difference(mine, by_prompt(pool, [best_of_n(c["guide"][name], c["judge"][name], n) for c in pool]))
        ]
    return found


def _gaps(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    return [ours[number] - theirs[number] for number in sorted(ours)]


def _over_seeds(cells: list[dict[str, Any]], values: list[float]) -> dict[str, float | None]:
    """Mean of the means of each seed, with the standard error over seeds."""
    names = sorted({cell["seed"] for cell in cells})
    means = [np.mean([v for c, v in zip(cells, values, strict=True) if c["seed"] == name]) for name in names]
    error = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    return {"mean": float(np.mean(means)), "standard_error": error}


def _headline(plan: Plan, table: dict[str, Any]) -> dict[str, Any]:
    """What gates read, of the arms with most draws; "attribute" is the mean of both directions of sentiment."""
    found: dict[str, dict[str, Any]] = {"fk_less_best_of_n": {}, "held_out": {}}
    most = max((arm.draws for arm in plan.arms if arm.name == "fk"), default=1)
    both = ("sentiment_up", "sentiment_down")
    for arm in plan.arms:
        if arm.name != "fk" or arm.draws != most:
            continue
        for part, key in (("fk_less_best_of_n", "less_best_of_n"), ("held_out", "judge_less_base")):
            for name, rows in table.items():
                if key in rows[label(arm)]:
                    found[part].setdefault(name, {})[f"K{arm.k}"] = rows[label(arm)][key]
            if set(both) <= table.keys():
                gaps = np.mean([table[name][label(arm)]["per_prompt"][key] for name in both], axis=0)
                pooled = paired_difference(dict(enumerate(gaps)), dict.fromkeys(range(len(gaps)), 0.0))
                found[part].setdefault("attribute", {})[f"K{arm.k}"] = [*pooled]
    return found
