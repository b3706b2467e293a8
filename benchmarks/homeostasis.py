"""The homeostatic loss against none, and its forms against each other: `fklit fit` over seeds, with a table at the end.

    python benchmarks/homeostasis.py digits          # three seeds with and without the loss, and the baselines
    python benchmarks/homeostasis.py forms           # five seeds of each form of the loss on digits
    python benchmarks/homeostasis.py ablation        # each of its terms; finite nudges and the exact response
    python benchmarks/homeostasis.py policy          # samples that have not converged, dropped and kept
    python benchmarks/homeostasis.py fashion_mnist --data_dir DIR
    python benchmarks/homeostasis.py conv --data_dir DIR      # a small conv net on padded Fashion-MNIST
    python benchmarks/homeostasis.py conv_forms --data_dir DIR     # five seeds of its loss, at equal seconds

Every run is the command that `--dry` prints. A finished run is a line of outputs/eqprop/EXPERIMENT.jsonl and is not
repeated, so an interrupted benchmark goes on where it stopped. Figures are those of the last epoch; no run is selected.
"""

import argparse
import json
import logging
import math
import os
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TO_THE_END = {"max_iterations": 200, "tolerance": 1e-6}
NONE = ("--model.homeostasis", "null")
KEEP = ("--model.network.unconverged", "keep")
CONSTANT = ("--model.optimizer.schedule", "constant", "--trainer.gradient_clip_val", "null")


def estimator(name: str, **settings: Any) -> tuple[str, str]:
    """Words that choose an estimator; the relaxation is given whole: a part left out would stay as it was."""
    given = {"class_path": f"fklit.eqprop.{name}", "init_args": {"relaxation": TO_THE_END} | settings}
    return ("--model.network.estimator", json.dumps(given))


def homeostasis(**settings: Any) -> tuple[str, ...]:
    """Words that change settings of the homeostatic loss."""
    return tuple(word for name, value in settings.items() for word in (f"--model.homeostasis.{name}", str(value)))


def epochs(number: int) -> tuple[str, ...]:
    """Words for another number of epochs than the experiment's."""
    return ("--trainer.max_epochs", str(number), "--trainer.check_val_every_n_epoch", str(number))


@dataclass(frozen=True)
class Experiment:
    """A configuration, its epochs, its variants (words of the command line by name), and how many seeds each gets."""

    config: str
    epochs: int
    variants: dict[str, tuple[str, ...]]
    seeds: int = 3


RBP, EXACT = estimator("RecurrentBackprop"), estimator("ExactResponse")
EXPERIMENTS = {
    "digits": Experiment(
        "digits",
        30,
        {
            "EP": NONE,
            "EP + homeostasis": (),
            "recurrent backprop": (*NONE, *RBP),
            "tied EP": (*NONE, "--model.network.tied", "true"),
        },
    ),
    "forms": Experiment(
        "digits",
        30,
        {
            "two_term, 5 probes": (),
            "two_term, 1 probe": homeostasis(probes=1),
            "squared, 1 probe": homeostasis(form="squared", probes=1),
            "closed": homeostasis(form="closed"),
        },
        seeds=5,
    ),
    "ablation": Experiment(
        "digits",
        30,
        {
            "no loss, N = 2, beta 0.1": NONE,
            "no loss, exact response": (*NONE, *EXACT),
            "both terms, N = 2, beta 0.1": (),
            "both terms, exact response": EXACT,
            "both terms, N = 2, beta 0.5": estimator("Symmetric", beta=0.5),
            "both terms, N = 4, beta 0.5": estimator("Cauchy", beta=0.5, num_phases=4),
            "sensitivity only, N = 2, beta 0.1": homeostasis(reconstruction="false"),
            "reconstruction only, N = 2, beta 0.1": homeostasis(sensitivity="false"),
        },
    ),
    "policy": Experiment(
        "digits",
        30,
        {
            "exact response + loss, drop": EXACT,
            "exact response + loss, keep": (*EXACT, *KEEP),
            "exact response + loss, constant rate, no clipping, drop": (*EXACT, *CONSTANT),
            "exact response + loss, constant rate, no clipping, keep": (*EXACT, *CONSTANT, *KEEP),
            "recurrent backprop, drop": (*NONE, *RBP),
            "recurrent backprop, constant rate, no clipping, drop": (*NONE, *RBP, *CONSTANT),
            "recurrent backprop, constant rate, no clipping, keep": (*NONE, *RBP, *CONSTANT, *KEEP),
            "N = 2 + loss, drop": (),
            "N = 2 + loss, keep": KEEP,
        },
    ),
    "fashion_mnist": Experiment("fashion_mnist", 5, {"EP": NONE, "EP + homeostasis": ()}),
    "conv": Experiment("fashion_mnist_conv", 4, {"EP": NONE, "EP + homeostasis": ()}),
    "conv_forms": Experiment(  # 7 epochs with one probe take about as long as 6 with five
        "fashion_mnist_conv",
        6,
        {
            "two_term, 5 probes": homeostasis(form="two_term", probes=5),
            "two_term, 1 probe, 7 epochs": (*homeostasis(form="two_term", probes=1), *epochs(7)),
            "squared, 1 probe, 7 epochs": (*homeostasis(form="squared", probes=1), *epochs(7)),
        },
        seeds=5,
    ),
}


def words(experiment: Experiment, extra: Sequence[str], seed: int, options: Sequence[str]) -> list[str]:
    """The command of a run without the program's name."""
    return [
        "fit",
        *("--config", f"configs/eqprop/{experiment.config}.yaml"),
        *("--seed_everything", str(seed), "--data.seed", str(seed)),
        *("--trainer.max_epochs", str(experiment.epochs)),
        *("--trainer.check_val_every_n_epoch", str(experiment.epochs), "--trainer.num_sanity_val_steps", "0"),
        *extra,
        *options,
    ]


def run(command: Sequence[str]) -> dict[str, float]:
    """Runs a command and returns what was logged last."""
    from fklit.cli import main

    quiet = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false")
    still = ("--trainer.enable_model_summary", "false", "--trainer.enable_checkpointing", "false")
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about few workers and the like
        cli = main([*command, *quiet, *still])
    figures = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return figures | {"cpu_seconds": time.process_time() - start}


def mean_and_error(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Mean and standard error as text; both are NaN where a value is."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{scale * statistics.fmean(values):.{digits}f} ± {scale * error:.{digits}f}"


def table(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a row a variant."""
    keys = [key for key in records[0]["figures"] if key.startswith("alignment/error/") and not key.endswith("/out")]
    names = [f"cos {key.removeprefix('alignment/error/')}" for key in keys]
    head = ["method", "seeds", "accuracy %", *names, "input gradient cos", "symmetry", "unconverged %", "CPU s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name in dict.fromkeys(record["variant"] for record in records):
        mine = [record["figures"] for record in records if record["variant"] == name]

        def cell(key: str, scale: float = 1.0, digits: int = 2, *, mine: Sequence[dict[str, float]] = mine) -> str:
            return mean_and_error([figures[key] for figures in mine], scale, digits)

        first = next(key for key in mine[0] if key.startswith("alignment/gradient/links.input-"))
        cells = [
            *(name, str(len(mine)), cell("val/top1", 100, 1)),
            *(cell(key) for key in keys),
            *(cell(first), cell("alignment/symmetry"), cell("val/unconverged", 100, 1)),
            f"{statistics.fmean(figures['cpu_seconds'] for figures in mine):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Runs what has not run yet, prints the table and returns the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=None, help="of each variant; the experiment's own if left out")
    parser.add_argument("--first_seed", type=int, default=0, help="for a second process beside one of smaller --seeds")
    parser.add_argument("--variants", nargs="+", default=None, help="some of the experiment's; all if left out")
    parser.add_argument("--data_dir", default=None, help="of the data, if it is not where the configuration says")
    parser.add_argument("--output", type=Path, default=Path("outputs/eqprop"), help="folder of the records")
    parser.add_argument("--dry", action="store_true", help="print the commands and run nothing")
    parser.epilog = "Words after -- go to every run, such as: digits -- --trainer.max_epochs 2"
    own = list(sys.argv[1:] if given is None else given)
    cut = own.index("--") if "--" in own else len(own)
    asked, more = parser.parse_args(own[:cut]), own[cut + 1 :]
    experiment = EXPERIMENTS[asked.experiment]
    chosen = asked.variants or list(experiment.variants)
    if unknown := set(chosen) - set(experiment.variants):
        parser.error(f"expected --variants of {list(experiment.variants)}, got {sorted(unknown)}.")
    options = [*(["--data.data_dir", asked.data_dir] if asked.data_dir else []), *more]
    path = asked.output / f"{asked.experiment}.jsonl"
    files = sorted(asked.output.glob("*.jsonl"))  # experiments share runs
    known = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    records: list[dict[str, Any]] = []
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for seed in range(asked.first_seed, asked.seeds or experiment.seeds):
        for name in chosen:
            extra = experiment.variants[name]
            command = words(experiment, extra, seed, options)
            if asked.dry:
                print("fklit", shlex.join(command))
                continue
            line = next((record for record in known if record["command"] == command), None)
            if line is None:
                line = {"variant": name, "seed": seed, "figures": run(command), "command": command}
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            records.append(line | {"variant": name})
    if records:
        print(table(sorted(records, key=lambda record: list(experiment.variants).index(record["variant"]))))
    return records


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
