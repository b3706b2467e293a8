"""The tables of docs/clusters.md from the JSON of benchmarks/science.py.

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


def _cell(values: list[float | None], digits: int) -> str:
    mean, error = values[:2]
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


if __name__ == "__main__":
    print(lj_table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
