"""Loss curves of a training for its card, from the metrics.csv of one run or of the pieces of a resumed one.

python benchmarks/loss_curves.py train/loss,val/loss curves.png outputs/assets/text_to_image/version_0/metrics.csv
"""

import argparse
import csv
from pathlib import Path

import numpy as np


def read(paths: list[Path], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one column; of steps that a resumed run repeated, the last piece counts."""
    found: dict[int, float] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(name)]
        start = int(rows[0]["step"]) if rows else 0
        found = {step: value for step, value in found.items() if step < start}
        found |= {int(row["step"]): float(row[name]) for row in rows}
    if not found:
        raise SystemExit(f"{', '.join(map(str, paths))} has no values of {name!r}; give a column of the training.")
    steps = sorted(found)
    return np.array(steps), np.array([found[step] for step in steps])


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean, shorter at the ends."""
    kernel = np.ones(min(width, max(len(values), 1)))
    weight = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / weight


def draw(names: list[str], paths: list[Path], target: Path, *, width: int) -> None:
    """One panel a quantity, the raw values faint behind their running mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(names), 2.2), dpi=100, layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        steps, values = read(paths, name)
        sparse = name.startswith("val/")
        axis.plot(steps, values, color="#9bb7d4" if not sparse else "#1f5a93", lw=0.8, marker="." if sparse else None)
        if not sparse:
            axis.plot(steps, smooth(values, width), color="#1f5a93", lw=1.5)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        if values.size and values.min() > 0 and values.max() > 5 * values.min():
            axis.set_yscale("log")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", help="columns, with commas between")
    parser.add_argument("target", type=Path, help="picture to write")
    parser.add_argument("metrics", type=Path, nargs="+", help="metrics.csv of a CSVLogger, in order of time")
    parser.add_argument("--width", type=int, default=25, help="of the running mean, in logged steps")
    given = parser.parse_args()
    draw(given.names.split(","), given.metrics, given.target, width=given.width)


if __name__ == "__main__":
    main()
