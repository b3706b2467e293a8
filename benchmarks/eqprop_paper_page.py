"""The table and the picture of docs/published-experiments.md, from the JSON of `benchmarks/eqprop_paper.py`.

python benchmarks/eqprop_paper_page.py [JSON] [PICTURE]
"""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from eqprop_paper import COSINES, text

HEAD = (
    *("`--cells`", "experiment", "seeds", "epochs", "error %", "published, 50 epochs", "cos l1", "cos l2"),
    *("input gradient cos", "symmetry", "unconverged %", "core hours a run"),
)
L1, L2, GRADIENT = COSINES
SYMMETRY = "alignment/symmetry"
PANELS = {
    "error": "validation error, %",
    L1: "cosine with backpropagation, l1",
    L2: "cosine with backpropagation, l2",
    SYMMETRY: "symmetry of the Jacobian",
}


def paper_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each cell, means and standard errors over seeds of the last epoch."""
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    for row in rows:
        found, known = row["figures"], row["published_error"]
        percent = [None if value is None else 100 * value for value in found["val/unconverged"]]
        cells = [
            *(f"`{row['cell']}`", row["experiment"], str(row["seeds"]), str(row["epochs"]), text(found["error"], 1)),
            *("" if known is None else f"{known:g}", text(found[L1], 2), text(found[L2], 2), text(found[GRADIENT], 2)),
            *(text(found[SYMMETRY], 2), text(percent, 1), f"{row['cpu_hours'] / row['seeds']:.2f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """A row of panels for each experiment of the paper: mean over seeds, with its standard error as a band.

    Args:
        rows: those of the JSON.
        target: the picture.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["experiment"].partition(":")[0], []).append(row)
    size = (3.3 * len(PANELS), 3.2 * len(groups))
    figure, axes = plt.subplots(len(groups), len(PANELS), figsize=size, squeeze=False)
    for line, (group, members) in zip(axes, groups.items(), strict=True):
        for axis, (key, label) in zip(line, PANELS.items(), strict=True):
            for number, row in enumerate(members):
                _curve(axis, row["curves"][key], f"C{number}", row["experiment"].partition(": ")[2])
                if key == "error" and row["published_error"] is not None:
                    axis.plot(50, row["published_error"], "*", color=f"C{number}", ms=10, mec="k", mew=0.5)
            axis.set(xlabel="epoch", title=label)
            axis.grid(alpha=0.3)
        line[0].set_ylabel(group)
        line[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=90)
    plt.close(figure)


def _curve(axis: Any, curves: Sequence[Sequence[float]], color: str, label: str) -> None:
    means = [statistics.fmean(values) for values in zip(*curves, strict=True)]
    epochs = range(1, len(means) + 1)
    axis.plot(epochs, means, color=color, lw=1.2, label=label)
    if len(curves) > 1:
        errors = [statistics.stdev(values) / math.sqrt(len(values)) for values in zip(*curves, strict=True)]
        low, high = ([mean + side * error for mean, error in zip(means, errors, strict=True)] for side in (-1, 1))
        axis.fill_between(epochs, low, high, color=color, alpha=0.2, lw=0)


if __name__ == "__main__":
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/eqprop_paper.json")
    picture = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/pictures/eqprop_paper.png")
    measured = json.loads(source.read_text(encoding="utf-8"))["rows"]
    print(paper_table(measured))
    draw(measured, picture)
