"""The paper's experiments on Fashion-MNIST (arXiv 2309.02214), run by `fklit fit`, with its numbers beside ours.

    python benchmarks/eqprop_paper.py --dry                # the commands, one for each run
    python benchmarks/eqprop_paper.py --minutes 60         # goes on where the last call stopped, and prints the table
    python benchmarks/eqprop_paper.py --minutes 0 --output docs/results/eqprop_paper.json     # of what there is

A row of the JSON is replaced by one of as many runs and epochs or more, and rows of other cells stay.

A run of 50 epochs takes an hour (N = 2, exact response) to one and a half (N = 6) of one core without AVX-512, with
continuous time four hours, as far as 10 epochs tell. Iterations are compiled, which halves the time and
changes results by rounding. All runs are taken to 10 epochs, then to 20, 35 and 50, each from its last checkpoint, so
that a benchmark that was stopped has them all at nearly the same number. The rates are constant: 10 epochs are the
beginning of 50. A folder of --folder for each cell and seed holds its checkpoint, and `epochs.jsonl` with a line for
each epoch. No run begins after --minutes, and none begins another epoch that would end after them.
"""

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eqprop_paper_log import read_epochs
from rich.console import Console
from rich.table import Table

from fklit.atomic import write_json_atomically

ROOT = Path(__file__).resolve().parents[1]
STAGES = (10, 20, 35, 50)
TABLE_1, FIGURE_4 = "fashion_mnist_table1", "fashion_mnist_figure4"
COSINES = ("alignment/error/l1", "alignment/error/l2", "alignment/gradient/links.input-l1.forward_weight")


def _estimator(name: str, **settings: Any) -> tuple[str, str]:
    given = {"class_path": f"fklit.eqprop.{name}", "init_args": settings}
    return ("--model.network.estimator", json.dumps(given))


@dataclass(frozen=True)
class Cell:
    """An experiment: its configuration, what the command line changes, seeds, and the published number."""

    name: str
    config: str
    words: tuple[str, ...] = ()
    seeds: int = 3
    published: float | None = None  # validation error after 50 epochs in percent, where it is known to us


TO_THE_END = {"max_iterations": 150, "tolerance": 1e-5}  # as in figure 4; published: 20 iterations for every sample
NUDGED = {"beta": 0.5, "relaxation": {"max_iterations": 20, "tolerance": 1e-6}}
TURNS = {
    "num_phases": 4,
    "beta": 0.5,
    "iterations_per_phase": 60,
    "num_periods": 5,
    "from_zero": True,
    "tolerance": 1e-5,  # leaves out eight of nine iterations; published: all 1,200
}
NO_LOSS = ("--model.homeostasis", "null")
CELLS = {
    "n2": Cell("table 1: N = 2", TABLE_1),
    "n6": Cell("table 1: N = 6", TABLE_1, _estimator("Cauchy", num_phases=6, **NUDGED), published=14.3),
    "exact": Cell("figure 4: exact response", FIGURE_4, NO_LOSS),
    "exact_homeostasis": Cell("figure 4: exact response, homeostatic loss", FIGURE_4),
    "continuous": Cell("table 1: continuous time", TABLE_1, _estimator("Online", **TURNS), published=17.3),
}
for _angle in (0, 45, 90):  # one seed, exploratory
    _turned = ("--model.network.angle", str(_angle))
    _rbp = ("--config", str(ROOT / "configs" / "eqprop" / "baselines" / "recurrent_backprop.yaml"))
    CELLS[f"exact_{_angle}"] = Cell(
        f"figure 3: exact response, {_angle} degrees",
        TABLE_1,
        (*_estimator("ExactResponse", relaxation=TO_THE_END), *_turned),
        1,
    )
    CELLS[f"rbp_{_angle}"] = Cell(f"figure 3: recurrent backprop, {_angle} degrees", TABLE_1, (*_rbp, *_turned), 1)


def command(cell: Cell, seed: int, data_dir: str, epochs: int) -> list[str]:
    """The words after `fklit` that make a run."""
    return [
        *("fit", "--config", str(ROOT / "configs" / "eqprop" / f"{cell.config}.yaml"), *cell.words),
        *("--seed_everything", str(seed), "--data.seed", str(seed), "--data.data_dir", data_dir),
        *("--trainer.max_epochs", str(epochs), "--model.network.execution", '{"compile": true}'),
    ]


def bookkeeping(folder: Path, ends: float) -> list[str]:
    """What a run writes, from where it goes on, and the Unix time at which it is to be over."""
    align = {"every_n_epochs": 1, "num_batches": 4}
    keep = {"dirpath": str(folder), "save_last": True, "save_top_k": 1, "filename": "newest"}
    callbacks = [
        {"class_path": "fklit.callbacks.AlignmentCallback", "init_args": align},
        {"class_path": "eqprop_paper_log.EpochLog", "init_args": {"path": str(folder / "epochs.jsonl"), "ends": ends}},
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": keep},
    ]
    last = folder / "last.ckpt"
    return [
        *("--trainer.callbacks", json.dumps(callbacks), "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
        *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(folder)),
        *(("--ckpt_path", str(last)) if last.is_file() else ()),
    ]


def work(folder: Path, names: Sequence[str], epochs: int) -> Iterator[tuple[str, int, int]]:
    """Cell, seed and epochs of what is missing, in the order in which it is done."""
    for stage in sorted({min(stage, epochs) for stage in STAGES}):
        for seed in range(max(CELLS[name].seeds for name in names)):
            for name in names:
                if seed < CELLS[name].seeds and len(read_epochs(folder / name / str(seed) / "epochs.jsonl")) < stage:
                    yield name, seed, stage


def check_folder(given: argparse.Namespace) -> None:
    """Refuse a folder with runs of other words after `--`, whose epochs would count as those of these."""
    for path in sorted(given.folder.glob("*/*/words.json")):
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != given.more:
            raise SystemExit(
                f"expected {before} after --, as in {path.parent}, got {given.more}; give another --folder."
            )


def kept_rows(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows that the output file has; refused if they are of other words after `--`, beside which ours mean nothing."""
    if given.output is None or not given.output.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(given.output.read_text(encoding="utf-8"))["rows"]
    for row in rows:
        before = row["by"]["words"]
        if before != given.more:
            raise SystemExit(
                f"expected {before} after --, as in {given.output}, got {given.more}; give another --output."
            )
    return rows


def run(given: argparse.Namespace) -> None:
    """Work until the time is over, a run for each process."""
    ends = time.time() + 60 * given.minutes
    todo = list(work(given.folder, given.cells, given.epochs))
    here = str(Path(__file__).resolve().parent)  # where the callback is
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    # Compiled iterations are called from C++: up to a tenth less time
    environment = {"TORCHINDUCTOR_CPP_WRAPPER": "1", **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}

    def one(entry: tuple[str, int, int]) -> None:
        name, seed, stage = entry
        folder = given.folder / name / str(seed)
        if time.time() >= ends or len(read_epochs(folder / "epochs.jsonl")) >= stage:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomically(folder / "words.json", given.more)
        words = [*command(CELLS[name], seed, given.data_dir, stage), *given.more, *bookkeeping(folder, ends)]
        with open(folder / "fklit.log", "ab") as log:
            done = subprocess.run([sys.executable, "-m", "fklit", *words], env=environment, stdout=log, stderr=log)
        if done.returncode:
            raise SystemExit(f"fklit fit failed; {folder / 'fklit.log'} says why.")

    # One process takes the next entry whose run none is busy with: its stages go on from one another's checkpoints
    busy: set[tuple[str, int]] = set()
    free = threading.Condition()

    def work_on(_: int) -> None:
        while True:
            with free:
                while (entry := next((entry for entry in todo if entry[:2] not in busy), None)) is None and todo:
                    free.wait()
                if entry is None:
                    return
                todo.remove(entry)
                busy.add(entry[:2])
            failed = True
            try:
                one(entry)
                failed = False
            finally:
                with free:
                    busy.remove(entry[:2])
                    if failed:  # its later stages would fail, too
                        todo[:] = [other for other in todo if other[:2] != entry[:2]]
                    free.notify_all()

    with ThreadPoolExecutor(given.processes) as pool:
        list(pool.map(work_on, range(given.processes)))


def summarize(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each cell, at the most epochs that all of its seeds have, with a curve for each seed."""
    rows = []
    for name in names:
        cell = CELLS[name]
        runs = [read_epochs(folder / name / str(seed) / "epochs.jsonl") for seed in range(cell.seeds)]
        runs = [run for run in runs if run]
        if not runs:
            continue
        epochs = min(len(run) for run in runs)
        figures = {"error": [[100 * (1 - line["val/top1"]) for line in run[:epochs]] for run in runs]}
        for key in ("val/unconverged", "alignment/symmetry", *COSINES):
            figures[key] = [[line.get(key, math.nan) for line in run[:epochs]] for run in runs]
        rows.append(
            {
                "cell": name,
                "experiment": cell.name,
                "seeds": len(runs),
                "epochs": epochs,
                "figures": {key: _mean([curve[-1] for curve in curves]) for key, curves in figures.items()},
                "lowest_error": _mean([min(curve) for curve in figures["error"]]),
                "published_error": cell.published,
                "cpu_hours": sum(line["cpu_seconds"] for run in runs for line in run[:epochs]) / 3600,
                "curves": {
                    key: [[round(value, 4) for value in curve] for curve in curves] for key, curves in figures.items()
                },
            }
        )
    return rows


def merge(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a cell: a new one only if it has as many runs and epochs, so a file keeps what others have measured."""
    best: dict[str, dict[str, Any]] = {}
    for row in (*before, *rows):
        known = best.get(row["cell"])
        if known is None or (row["seeds"] >= known["seeds"] and row["epochs"] >= known["epochs"]):
            best[row["cell"]] = row
    return [best[name] for name in CELLS if name in best]


def _mean(values: Sequence[float]) -> list[float | None]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return [statistics.fmean(values), error]


def text(figure: Sequence[float | None], digits: int) -> str:
    """Mean and standard error; the mean alone of one seed."""
    mean, error = figure
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table(title="Fashion-MNIST, 784-256-256-10: mean ± standard error over seeds")
    for column in ("experiment", "seeds", "epochs", "error %", "published (50 epochs)", "unconverged %"):
        table.add_column(column)
    for column in ("cos l1", "cos l2", "input gradient cos", "symmetry"):
        table.add_column(column)
    for row in rows:
        found = row["figures"]
        known = "" if row["published_error"] is None else f"{row['published_error']:g}"
        percent = [None if value is None else 100 * value for value in found["val/unconverged"]]
        table.add_row(
            row["experiment"], str(row["seeds"]), str(row["epochs"]), text(found["error"], 1), known, text(percent, 2),
            *(text(found[key], 2) for key in (*COSINES, "alignment/symmetry")),
        )  # fmt: skip
    console.print(table)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most; 0 computes nothing")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--data_dir", default="data/fashion_mnist")
    parser.add_argument("--folder", type=Path, default=Path("outputs/eqprop/paper"), help="of checkpoints and figures")
    parser.add_argument("--output", type=Path, default=None, help="JSON file")
    parser.add_argument("--dry", action="store_true", help="print the commands and run nothing")
    parser.epilog = "Words after -- go to every run, such as: -- --data.num_train 1000"
    own = list(sys.argv[1:] if words is None else words)
    cut = own.index("--") if "--" in own else len(own)
    given = parser.parse_args(own[:cut])
    given.more = own[cut + 1 :]
    return given


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing, print the table, and write the JSON."""
    given = parse(words)
    if given.dry:
        for name in given.cells:
            for seed in range(CELLS[name].seeds):
                print("fklit", shlex.join(command(CELLS[name], seed, given.data_dir, given.epochs)))
        return []
    check_folder(given)
    kept = kept_rows(given)
    run(given)
    rows = summarize(given.folder, given.cells)
    show(rows, Console(width=170))
    if given.output is not None:
        measured_on: dict[str, Any] = {"system": platform.platform(), "cores": os.cpu_count()}
        measured_on |= {name: version(name) for name in ("fklit", "torch", "lightning")} | {"words": given.more}
        write_json_atomically(given.output, {"rows": merge(kept, [row | {"by": measured_on} for row in rows])})
    return rows


if __name__ == "__main__":
    main()
