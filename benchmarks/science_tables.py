"""The tables of docs/clusters.md and docs/molecules.md from the JSON of benchmarks/science.py.

python benchmarks/science_tables.py docs/results/science.json
"""

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = {
    "energy_w1": "energy W1",
    "energy_w2": "energy W2",
    "distance_w2": "pair-distance W2",
    "mean_energy": "energy",
}

MOLECULES = {
    "met": "both",
    "drug_like_and_easy": "drug-like, easy",
    "valid": "valid",
    "unique": "different",
    "internal_diversity": "internal diversity",
    "min_ess": "least ESS / K",
    "calls": "calls",
}


def lj_table(results: dict[str, Any]) -> str:
    """Markdown: one row for each system and arm."""
    lines = [
        f"| system | arm | {' | '.join(COLUMNS.values())} | least ESS / K | seconds |",
        f"| --- | --- | {' | '.join('---' for _ in COLUMNS)} | --- | --- |",
    ]
    for row in results["rows"]["lj"]:
        figures = row["figures"]
        cells = [_cell(figures[name], 3 if name == "distance_w2" else 2) for name in COLUMNS]
        ess = f"{figures['min_ess'][2]:.2f}" if "min_ess" in figures else ""
        seconds = f"{figures['seconds'][0]:.0f}" if "seconds" in figures else ""
        lines.append(f"| {row['system']} | {row['arm']} | {' | '.join(cells)} | {ess} | {seconds} |")
    return "\n".join(lines)


def molecules_table(results: dict[str, Any]) -> str:
    """Markdown: one row for each arm; the share that meets both conditions with its 95 % interval."""
    first, second = (row["arm"] for row in results["rows"]["molecules"][1:3])  # the best of n are made with the first
    names = {
        "unconditioned": "no condition",
        first: f"`{first}`",
        second: f"`{second}`",
        "best of n": f"best of 3 with `{first}`, by the two ranges",
        "FK steering": "FK steering by QED + 2 SA, no condition",
        "best of n by the rewards": "best of 3 by QED + 2 SA, no condition",
    }
    lines = [f"| | {' | '.join(MOLECULES.values())} |", f"| --- |{' --- |' * len(MOLECULES)}"]
    for row in results["rows"]["molecules"]:
        figures, weighed = row["figures"], row["arm"].startswith(("heuristic", "weighted", "FK"))
        mean, low, high = figures["met"]
        cells = [f"{mean:.2f} [{low:.2f}, {high:.2f}]"]
        for name in list(MOLECULES)[1:-2]:
            cells.append(f"{figures[name][0]:.2f}")
        cells += [f"{figures['min_ess'][0]:.2f}" if weighed else "", f"{figures['calls'][0]:,.0f}"]
        lines.append(f"| {names.get(row['arm'], row['arm'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float | None], digits: int) -> str:
    mean, error = values[:2]
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(lj_table(found), molecules_table(found), sep="\n\n")
