"""Draws the picture of `benchmarks/beyond.py`: the judge of every method above what it costs, beside best-of-n.

python benchmarks/beyond_figure.py [JSON] [PICTURE]
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"exact": "C0", "chosen": "C3", "search": "C7"}


def draw(found: dict[str, Any], target: Path) -> None:
    """One panel for the measured seconds, one for each model of full size.

    Args:
        found: what `benchmarks/beyond.py` writes.
        target: the picture.
    """
    curve = sorted((int(n), figures["judge"]) for n, figures in found["best_of_n"].items())
    panels = ["measured here", *(f"{name}, by operations" for name in found["operations_at_full_size"])]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        axis.plot(*zip(*curve, strict=True), color="k", lw=1, label="best of n")
        for row in found["rows"]:
            name = panel.removesuffix(", by operations")
            cost = row["equal_seconds_model"].get(name, row["equal_seconds"])
            kind = "search" if not row["samples_target"] else "exact"
            kind = "chosen" if (row["method"] or "difference") == found["summary"]["method"] else kind
            gap, low, high = cost["judge"]
            half = [[gap - low], [high - gap]]
            axis.errorbar(cost["n"], row["judge"], half, fmt="o", ms=4, lw=0.8, color=COLORS[kind])
            text = f"{row['method'] or 'difference'}, K={row['k']}"
            axis.annotate(text, (cost["n"], row["judge"]), (4, 3), textcoords="offset points", fontsize=6)
        axis.set(xscale="log", xlabel="samples of best-of-n at equal seconds", title=panel)
        axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axis.minorticks_off()
    axes[0].set_ylabel("judge of the chosen sample")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/beyond.json")
    draw(
        json.loads(source.read_text(encoding="utf-8")),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs/pictures/beyond.png"),
    )
