"""The tables of docs/correctors.md, from the JSON that `python benchmarks/correctors.py` writes.

    python benchmarks/correctors_tables.py outputs/benchmarks/correctors docs/results/correctors.json

merges a folder's results into one file and prints the tables; a test holds the guide to the file.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PARTS = (
    "mixtures",
    "pipelines",
    "variance",
    "gmm40",
    "steps",
    "throughput",
    "overhead",
    "mutual_information",
    "summaries",
    "pictures",
    "emoji",
)
SCHEDULERS = {
    "DDIMScheduler": "DDIM, eta 1",
    "DDPMScheduler": "DDPM",
    "EulerAncestralDiscreteScheduler": "Euler ancestral",
}
PAPER = {  # arXiv 2503.02819, table A1: W1, W2, total variation; mean and standard deviation over five runs
    "target score": ((11.304, 0.296), (15.671, 0.269), (0.487, 0.007)),
    "tempered noise": ((16.051, 0.123), (19.627, 0.101), (0.638, 0.002)),
    "target score, FKC": ((6.256, 3.960), (11.265, 5.629), (0.372, 0.020)),
    "tempered noise, FKC": ((9.974, 1.229), (14.045, 1.308), (0.512, 0.017)),
}
Row = dict[str, Any]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Markdown of every table, by name."""
    rows = {part: results[part]["rows"] for part in PARTS if part in results}
    found = {
        "mixtures": _mixtures(rows["mixtures"]),
        "few steps": _few_steps(rows["mixtures"]),
        "pipelines": _pipelines(rows["pipelines"]),
        "variance": _variance(rows["variance"]),
        "gmm40": _gmm40(rows["gmm40"]),
        "summaries": _summaries(rows["summaries"]),
    }
    if "steps" in rows:
        found["steps"] = _steps(rows["steps"])
    if "pictures" in rows:
        found["pictures"] = _pictures(rows["pictures"])
    if "emoji" in rows:
        found["emoji"] = _emoji(rows["emoji"])
    return found


def _steps(rows: list[Row]) -> str:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    body = []
    for temperature, count in dict.fromkeys((row["temperature"], row["evaluations"]) for row in rows):
        found = [row for row in rows if (row["temperature"], row["evaluations"]) == (temperature, count)]
        errors = [row["figures"]["energy_error"] for row in sorted(found, key=lambda row: ways.index(row["way"]))]
        cells = [f"{100 * error['mean']:+.1f} ± {100 * error['se']:.1f}" for error in errors]
        body.append([temperature, count, *cells])
    return _table(["temperature", "evaluations", *ways], body)


def _mixtures(rows: list[Row]) -> str:
    ways = ("heuristic", "corrected", "corrected, fitted control")
    body = [
        [target, *(_number(methods[way], "w1") for way in ways)]
        for target, methods in _grouped(rows, "target").items()
        if ways[2] in methods
    ]
    return _table(["target", "heuristic", "corrected, every step", "with fitted control"], body)


def _few_steps(rows: list[Row]) -> str:
    ways = ("heuristic", "corrected, rate", "corrected, kernel weight")
    body = [
        [target, *(_number(methods[way], "w1") for way in ways)]
        for target, methods in _grouped(rows, "target").items()
        if ways[2] in methods
    ]
    return _table(["target", *ways], body)


def _pipelines(rows: list[Row]) -> str:
    ways = ("heuristic", "corrected, net interval", "corrected, kernel")
    body = []
    for row in rows:
        if row["method"] == ways[0]:
            same = [r for r in rows if (r["scheduler"], r["steps"]) == (row["scheduler"], row["steps"])]
            methods = {r["method"]: r for r in same}
            body.append(
                [f"{SCHEDULERS[row['scheduler']]}, {row['steps']}", *(_number(methods[way], "w1") for way in ways)]
            )
    return _table(["scheduler, steps", "heuristic", "net interval", "kernel"], body)


def _variance(rows: list[Row]) -> str:
    ways = ("plain", "Gaussian control", "fitted control")
    body = []
    for target, methods in _grouped(rows, "target").items():
        plain, closed, fitted = (methods[f"{way}, no resampling"] for way in ways)
        body.append(
            [target, *(_number(row, "ess") for row in (plain, closed, fitted)),
             *(_number(row, "log_z_error") for row in (plain, fitted))]
        )  # fmt: skip
    return _table(["target", "plain", "Gaussian control", "fitted control", "log Z, plain", "log Z, fitted"], body)


def _gmm40(rows: list[Row]) -> str:
    body = []
    for row in sorted(rows, key=lambda row: row["figures"]["w1"]["mean"] if "truth" not in row["method"] else 0.0):
        paper = PAPER.get(row["method"], ())
        told = [f" ({mean:.3f}, {sd:.3f})" for mean, sd in paper] or ["", "", ""]
        figures = [_number(row, name, digits) for name, digits in (("w1", 2), ("w2", 2), ("tv", 3))]
        body.append(
            [row["method"], *(figure + more for figure, more in zip(figures, told, strict=True)),
             _number(row, "mode_tv"), _number(row, "energy_w2")]
        )  # fmt: skip
    return _table(["method", "W1", "W2", "total variation", "mass of modes, TV", "energy W2"], body)


def _summaries(rows: list[Row]) -> str:
    names = [name for name in rows[0] if name != "kind"]
    return _table(
        ["coefficients shared by", *names], [[r["kind"], *(f"{r[name]:+.3f}" for name in names)] for r in rows]
    )


def _pictures(rows: list[Row]) -> str:
    body = []
    for row in rows[1:]:
        shares = " ".join(f"{share:.2f}" for share in row["shares"])
        body.append(
            [f"{row['guidance']:g}", "heuristic" if row["k"] == 1 else f"corrected, K = {row['k']}",
             f"{row['distance']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", shares,
             f"{row['least_ess']:.1f}", f"{row['unique_roots']:.1f}"]
        )  # fmt: skip
    return _table(["w", "method", "distance", "shares of the five colors", "least ESS", "roots"], body)


def _emoji(rows: list[Row]) -> str:
    names = ("judge", "judge - plain", "judge - best of K", "reward - plain", "reward - best of K", "diversity")
    body = []
    for row in rows:
        cells = [_interval(row.get(name), signed="-" in name) for name in names]
        sizes = [f"{row[name]['mean']:.2f}" if name in row else "" for name in ("ess", "unique_roots")]
        body.append([f"{row['guidance']:g}", str(row["k"]), row["way"], *cells, *sizes])
    heads = ["judge", "less plain", "less best of K", "reward less plain", "reward less best of K", "diversity"]
    return _table(["w", "K", "method", *heads, "ESS", "roots"], body)


def _grouped(rows: list[Row], name: str) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row[name], {})[row["method"]] = row
    return found


def _number(row: Row, figure: str, digits: int = 3) -> str:
    found = row["figures"].get(figure)
    if found is None:
        return ""
    return f"{found['mean']:.{digits}f}" + ("" if found["se"] is None else f" ± {found['se']:.{digits}f}")


def _interval(found: dict[str, float] | None, *, signed: bool) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""
    mean, low, high = (format(found[name], f"{sign}.3f") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *body]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def main(folder: str, target: str) -> None:
    """Merge and print."""
    results = {}
    for part in PARTS:
        path = Path(folder) / f"{part}.json"
        if path.is_file():
            results[part] = json.loads(path.read_text(encoding="utf-8"))
    Path(target).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, table in tables(results).items():
        print(f"\n{name}\n\n{table}")


if __name__ == "__main__":
    main(*sys.argv[1:])
