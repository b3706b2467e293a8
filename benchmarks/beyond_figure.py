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

MARKERS = "osD^vPX*<>"
COLORS = {"exact": "C0", "chosen": "C3", "search": "C7"}


def draw(found: dict[str, Any], target: Path) -> None:
    """One panel for the measured seconds, one for each model of full size.

    Args:
        found: what `benchmarks/beyond.py` writes.
        target: the picture.
    """
    curve = sorted((int(n), figures["judge"]) for n, figures in found["best_of_n"].items())
    panels = ["measured here", *(f"{name}, by operations" for name in found["operations_at_full_size"])]
    legend = 0.2 * (1 + (len(found["rows"]) + 3) // 3)  # inches
    size = (3.6 * len(panels), 3.5 + legend)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.plot(*zip(*curve, strict=True), color="k", lw=1, label="best of n")
        for number, row in enumerate(found["rows"]):
            name = panel.removesuffix(", by operations")
            cost = row["equal_seconds_model"].get(name, row["equal_seconds"])
            kind = "search" if not row["samples_target"] else "exact"
            kind = "chosen" if (row["method"] or "difference") == found["summary"]["method"] else kind
            gap, low, high = cost["judge"]
            label = f"{row['method'] or 'difference'}, K = {row['k']}"
            style = {"fmt": MARKERS[number % len(MARKERS)], "ms": 6, "lw": 0.8, "color": COLORS[kind], "label": label}
            axis.errorbar(cost["n"], row["judge"], [[gap - low], [high - gap]], **style)
        lowest = min(figures["judge"] for figures in found["rows"])
        axis.set(xscale="log", xlabel="samples of best-of-n at equal seconds", title=panel)
        axis.set(xlim=(1.8, 17), ylim=(lowest - 0.12, min(1.0, lowest + 0.12)))
        axis.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("judge of the chosen sample")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, legend / size[1], 1, 1))
    figure.savefig(target, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/beyond.json")
    draw(
        json.loads(source.read_text(encoding="utf-8")),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs/pictures/beyond.png"),
    )
