"""Correctors for science: temperature annealing of clusters, and two objectives at once for molecules.

    python benchmarks/science.py --only lj            # three networks, nine runs; resumes where it stopped
    python benchmarks/science.py --only lj --quick    # five particles and twenty training steps, to see that it runs
    python benchmarks/science.py --only molecules     # ten runs of each arm; needs the trained model and data/moses

lj    Lennard-Jones clusters of 13 particles, trained at temperature 2 by configs/correctors/lj13_hot.yaml and annealed
      to 1.5 and 1.0, and two systems whose scores are exact: a harmonic cluster, and four particles around rhombi and
      squares. Arms: heuristic, corrected, corrected with a drift control, corrected with Euler-Maruyama's steps,
      corrected and polished by MALA at the exact energy, plain parallel tempering, the network at its own
      temperature, and the floor; and, to 1.0, from networks of 1.5 that were trained on corrected samples ("ladder").

      Figures: energy W1 and W2, W2 of pair distances, mean energy, least ESS of the run as a share of the particles,
      seconds.

molecules  The model of configs/assets/molecules.yaml and two of its conditions. Arms: no condition, each one, both in
      one prompt, their product and their geometric average without and with weights, best of n at equal calls of the
      denoiser, FK steering by QED and ease of synthesis; where both conditions are counts of atoms, also products of
      the model without a condition and exact experts, one for each count and one for both. Figures: share in the range
      of both conditions, valid, unique, novel, internal diversity, hypervolume of the two rewards, calls; means over
      runs with 95 % bootstrap intervals.

Each cell (system, arm, network or seed) is one line of JSON under --output and is not computed again.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from science_clusters import Cell, cells
from science_molecules import add_arguments, cells_file
from science_molecules import cells as molecule_cells
from science_molecules import show as show_molecules
from science_molecules import summarize as summarize_molecules

Figures = dict[str, Any]


def run_cells(work: Sequence[Cell], path: Path, console: Console) -> dict[tuple[str, str], list[Figures]]:
    """Compute what is not on disk; return the figures of each system and arm, in the order of the seeds."""
    known: dict[str, Figures] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            kept = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        known[kept["key"]] = kept["figures"]
    found: dict[tuple[str, str], list[Figures]] = {}
    for cell in work:
        key = json.dumps([cell.system, cell.arm, cell.seed])
        if key not in known:
            known[key] = cell.compute()
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "figures": known[key]}) + "\n")
            console.print(f"[dim]{cell.system}, {cell.arm}, seed {cell.seed}[/dim]")
        found.setdefault((cell.system, cell.arm), []).append(known[key])
    return found


def mean_and_error(values: Sequence[float]) -> list[float | None]:
    """Mean and standard error; the error is None for one value."""
    tensor = torch.tensor(values, dtype=torch.float64)
    return [float(tensor.mean()), float(tensor.std()) / math.sqrt(len(values)) if len(values) > 1 else None]


def summarize(found: dict[tuple[str, str], list[Figures]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Energy W1 by system and arm, and one row with all figures for each of them."""
    summary: dict[str, Any] = {}
    rows = []
    for (system, arm), figures in found.items():
        row = {name: mean_and_error([one[name] for one in figures]) for name in figures[0] if name != "radial"}
        summary.setdefault(system, {})[arm] = row["energy_w1"]
        if "min_ess" in row:
            row["min_ess"].append(min(one["min_ess"] for one in figures))
        rows.append({"system": system, "arm": arm, "runs": len(figures), "figures": row})
        if "radial" in figures[0]:
            density = torch.tensor([one["radial"] for one in figures], dtype=torch.float64).mean(dim=0)
            rows[-1]["radial"] = [round(value, 5) for value in density.tolist()]
    return summary, rows


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one table."""
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    table = Table(title="lj: mean ± standard error")
    for column in ("system", "arm", *names):
        table.add_column(column)
    for row in rows:
        texts = []
        for name in names:
            mean, error, *_ = row["figures"].get(name, (None, None))
            texts.append("" if mean is None else f"{mean:.3f}" + ("" if error is None else f" ± {error:.3f}"))
        table.add_row(row["system"], row["arm"], *texts)
    console.print(table)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["lj", "molecules"], default=["lj"])
    parser.add_argument("--quick", action="store_true", help="five particles, twenty training steps")
    parser.add_argument("--networks", type=int, default=3, help="networks of 13 particles")
    parser.add_argument("--samplings", type=int, default=3, help="runs of each network; the exact systems have as many")
    parser.add_argument("--train-steps", type=int, help="of a network; the configuration's if not given")
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--systems", nargs="+", help="only those whose names start so, e.g. 'lj13 T=1.5'")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/science"))
    add_arguments(parser)
    given = parser.parse_args(words)
    if given.quick:
        given.networks, given.samplings, given.particles, given.steps = 1, 1, 40, 30
        given.runs, given.molecules, given.molecule_steps, given.group = 2, 8, 6, 4
        given.count_steps = given.molecule_steps
    return given


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the tables, write the JSON; parts that were not asked for stay in it."""
    given = parse(words)
    torch.set_num_threads(1)
    name = "quick" if given.quick else "science"
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=170)
    target = given.output / f"{name}.json"
    found = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    for part in given.only:
        if part == "lj":
            work = [
                cell
                for cell in cells(given)
                if given.systems is None or any(cell.system.startswith(start) for start in given.systems)
            ]
            summary, rows = summarize(run_cells(work, given.output / f"{name}.lj.cells.jsonl", console))
            show(rows, console)
        else:
            work = list(molecule_cells(given))
            done = run_cells(work, cells_file(given, name), console)
            summary, rows = summarize_molecules(done, given.strengths[-1])
            show_molecules(rows, console)
        known = {
            "summary": summary,
            "rows": rows,
            "settings": {key: str(value) for key, value in vars(given).items() if key != "output"},
            "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "device": given.device},
            "versions": {package: version(package) for package in ("fklit", "torch", "lightning")},
        }
        for key, value in known.items():
            found.setdefault(key, {})[part] = value
    part = target.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(part, target)
    console.print(f"Written to {target}.")
    return found


if __name__ == "__main__":
    main()
