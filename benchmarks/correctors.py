"""Feynman-Kac correctors against their heuristics and against exact answers.

    python benchmarks/correctors.py --only mixtures gmm40 variance throughput --seeds 5
    python benchmarks/correctors.py --only emoji            # the shipped text-to-image model; resumes where it stopped

mixtures    1-D mixtures with a known answer: W1 of the heuristic sampler, of plain correctors, and with drift control.
pipelines   the same guidance through diffusers' schedulers and the interception, as a user's pipeline does.
gmm40       the forty Gaussians of arXiv 2503.02819, section 5.2: annealing to a third of the temperature, 10,000
            particles, 1,000 steps. W1, W2 (exact assignment of 2,000 points), total variation (200 x 200 cells),
            squared MMD, energy W1 and W2, and that of the masses of modes; lengths in the units of the data.
variance    standard deviation over seeds of log Z, and terminal ESS / N without resampling, with and without control.
steps       error of the mean energy of a stiff cluster: Euler-Maruyama, split noise and Heun at equal evaluations.
throughput  seconds for N = 4000, 400 steps, two analytic experts.
overhead    a corrected call of the shipped pipeline over a plain one, in seconds.
emoji       one weighted draw from each group of K = 2, 4, 8, one plain draw, and best of K at the same denoiser calls.
mutual_information  of the text-to-image model's prompts and samples, step by step, against the prompts' entropy.
summaries   what a linear drift control on summaries of its latents explains of the weights.
pictures    guidance with exact denoisers of 1,800 pictures (needs `python -m fklit.data fetch emoji`).

Every cell (method, seed) is one line of JSON under --output and is not computed again. Means are over seeds, with
standard errors. `benchmarks/correctors_tables.py` makes the tables of the guide, with the paper's figures beside ours.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import correctors_pipelines
import correctors_simulation
import correctors_steps
import torch
from correctors_simulation import Figures, Part
from rich.console import Console
from rich.table import Table

PARTS: dict[str, Callable[[], Part]] = {
    "mixtures": correctors_simulation.mixtures,
    "pipelines": correctors_pipelines.through_schedulers,
    "gmm40": correctors_simulation.gmm40,
    "variance": correctors_simulation.variance,
    "steps": correctors_steps.steps,
    "throughput": correctors_simulation.throughput,
    "overhead": correctors_pipelines.overhead,
}
IMAGE_PARTS = ("mutual_information", "summaries", "pictures", "emoji")  # in files of their own


def run_part(name: str, seeds: Sequence[int], folder: Path, console: Console) -> list[dict[str, Any]]:
    """Compute the cells that are not on disk and return one row a method, in order."""
    path = folder / f"{name}.cells.jsonl"
    known: dict[str, Figures] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            cell = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        known[cell["key"]] = cell["figures"]
    # Seeds on the outside: every method has its first seed before any has its second.
    work = list(PARTS[name]())
    for seed in seeds:
        for labels, compute in work:
            key = json.dumps([labels, seed], sort_keys=True)
            if key not in known:
                known[key] = compute(seed)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "figures": known[key]}) + "\n")
                console.print(f"[dim]{name} {', '.join(labels.values())}, seed {seed}[/dim]")
    rows = []
    for labels, _ in work:
        cells = [known[json.dumps([labels, seed], sort_keys=True)] for seed in seeds]
        rows.append({**labels, "figures": {figure: summary([c[figure] for c in cells]) for figure in cells[0]}})
    return rows


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation and standard error; the last two are None for one seed."""
    tensor = torch.tensor(values, dtype=torch.float64)
    deviation = float(tensor.std()) if len(values) > 1 else None
    error = None if deviation is None else deviation / math.sqrt(len(values))
    return {"mean": float(tensor.mean()), "sd": deviation, "se": error}


def show(name: str, rows: list[dict[str, Any]], seeds: int, console: Console) -> None:
    """Print a part's table."""
    labels = [key for key in rows[0] if key != "figures"]
    figures = list(dict.fromkeys(figure for row in rows for figure in row["figures"]))
    table = Table(title=f"{name}: mean ± standard error over {seeds} seed(s)")
    for column in (*labels, *figures):
        table.add_column(column)
    for row in rows:
        cells = []
        for figure in figures:
            found = row["figures"].get(figure)
            error = "" if found is None or found["se"] is None else f" ± {found['se']:.3f}"
            cells.append("" if found is None else f"{found['mean']:.3f}{error}")
        table.add_row(*[row[label] for label in labels], *cells)
    console.print(table)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *IMAGE_PARTS], default=[*PARTS, *IMAGE_PARTS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=24, help="emoji: prompts")
    parser.add_argument("--steps", type=int, default=30, help="emoji: steps")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_clip")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/correctors"))
    return parser.parse_args(words)


def run_image_part(name: str, given: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Compute and print a part about pictures."""
    import correctors_emoji
    import correctors_exact_pictures
    import correctors_why

    seeds = range(given.seeds)
    if name == "mutual_information":
        rows = correctors_why.mutual_information(given.pipeline, seeds=seeds, prompts=given.prompts, steps=given.steps)
        correctors_why.show(rows, "mutual information of prompts and samples, in nats", console, hidden={"by_step"})
    elif name == "pictures":
        rows = correctors_exact_pictures.run(seeds=seeds, steps=given.steps)
        correctors_exact_pictures.show(rows, console)
    elif name == "summaries":
        rows = correctors_why.summaries(given.pipeline, prompts=min(given.prompts, 8), steps=given.steps)
        correctors_why.show(rows, "share of a step's log weight that a linear control explains", console)
    else:
        rows = correctors_emoji.run(
            given.output,
            console,
            seeds=seeds,
            prompts=given.prompts,
            steps=given.steps,
            pipeline=given.pipeline,
            reward=given.reward,
        )
        correctors_emoji.show(rows, console)
    return rows


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the tables and a line of JSON for each part, write the JSON."""
    given = parse(words)
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=190)
    found: dict[str, Any] = {}
    for name in given.only:
        if name in IMAGE_PARTS:
            rows = run_image_part(name, given, console)
        else:
            rows = run_part(name, range(given.seeds), given.output, console)
            show(name, rows, given.seeds, console)
        found[name] = {
            "rows": rows,
            "seeds": given.seeds,
            "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
            "versions": {package: version(package) for package in ("fklit", "torch", "diffusers", "scipy")},
        }
        target = given.output / f"{name}.json"
        part = target.with_suffix(".part")
        part.write_text(json.dumps(found[name], indent=2), encoding="utf-8")
        os.replace(part, target)
        print(json.dumps({name: found[name]}))
        console.print(f"Written to {target}.")
    return found


if __name__ == "__main__":
    main()
