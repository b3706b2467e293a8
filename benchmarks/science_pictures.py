"""The picture of docs/clusters.md from the JSON of benchmarks/science.py: densities of pair distances.

python benchmarks/science_pictures.py docs/results/science.json docs/pictures/clusters_radial.png
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

ARMS = {
    "exact hot sample": "0.7",
    "floor": "black",
    "heuristic": "tab:red",
    "corrected": "tab:blue",
    "corrected, ladder, K = 1,600": "tab:green",
}
LABELS = {"exact hot sample": "T = 2, exact", "floor": "exact", "corrected, ladder, K = 1,600": "corrected, ladder"}


def main(source: str, target: str) -> None:
    """Draw one panel for each temperature."""
    rows = json.loads(Path(source).read_text(encoding="utf-8"))["rows"]["lj"]
    systems = [row["system"] for row in rows if row["arm"] == "heuristic" and "radial" in row]
    figure = Figure(figsize=(5.2 * len(systems), 3.2), layout="constrained")
    for place, system in enumerate(systems, 1):
        axes = figure.add_subplot(1, len(systems), place)
        for row in rows:
            if row["system"] == system and row["arm"] in ARMS:
                width = 6.0 / len(row["radial"])
                middles = [(number + 0.5) * width for number in range(len(row["radial"]))]
                axes.plot(middles, row["radial"], color=ARMS[row["arm"]], label=LABELS.get(row["arm"], row["arm"]))
        axes.set(title=system, xlabel="distance of a pair", ylabel="density", xlim=(0.5, 5))
        axes.legend(frameon=False)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
