"""FK steering of the shipped text model against best-of-n and the base: paired differences with 95 % intervals.

    python -m fklit.data fetch text-parts     # SmolLM2, the judge of fluency
    python benchmarks/text.py                 # 35 prompts x 3 continuations x 3 seeds; resumes where it stopped
    python benchmarks/text.py --device cuda --rows 1024
    python benchmarks/text.py --shards 2 --shard 0 & python benchmarks/text.py --shards 2 --shard 1; wait
    python benchmarks/text.py --quick         # a few texts, to see that it runs

Arms: FK steering with K = 4 and 8, one draw and four at each scored step, and particle Gibbs; the base and best-of-n
are exact means over subsets of a pool of unsteered texts, so best-of-n has less noise than runs of it would. "Equal
denoiser calls" is the n whose unsteered texts cost as many calls as the steered run did, rounded up and not below K.

Attributes: fluency (the shipped causal model guides, SmolLM2 judges), sentiment up and down (VADER guides, AFINN
judges), acceptability (link-grammar guides, SmolLM2 judges), and toxicity down (a linear classifier guides; AFINN,
whose worst valences are those of abuse, judges). Guides that are not installed are named and left out. What guides
never judges. Shards share the work; the run without `--shard` computes what is left and prints the tables.

Intervals: means over continuations and seeds of each prompt, then prompts are drawn again (percentile bootstrap); with
each figure stands the standard error over seeds.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from text_cells import PROMPTS, Arm, Attribute, Plan, file_of, read_cells, run_cells
from text_speed import measure
from text_summary import summarize

from fklit.rewards import (
    AFINNSentiment,
    GrammarScore,
    LanguageModelLikelihood,
    ProfanityScore,
    VADERSentiment,
    WeightedSum,
)
from fklit.text import MaskedTextModel, TextSampling

# Fluency was tuned on other prompts: of 3, 5, 10, 20 and 40, with 1, 4 and 8 draws and five windows.
_SCALES = {"fluency": 20.0, "sentiment_up": 5.0, "sentiment_down": 5.0, "acceptability": 10.0, "toxicity_down": 5.0}


def _negative(kind: Any) -> Any:
    return WeightedSum([kind()], [-1.0])


def attributes(names: Sequence[str], scales: dict[str, float], guide: str, judge: str) -> tuple[list[Attribute], dict]:
    """The attributes whose guide can be loaded, and why the others are left out."""
    fluent = partial(LanguageModelLikelihood, judge)
    made = {
        "fluency": (partial(LanguageModelLikelihood, guide), fluent),
        "sentiment_up": (VADERSentiment, AFINNSentiment),
        "sentiment_down": (partial(_negative, VADERSentiment), partial(_negative, AFINNSentiment)),
        # Without a limit of words left out, texts that no grammar explains take most of the benchmark's time.
        "acceptability": (partial(GrammarScore, max_left_out=1), fluent),
        "toxicity_down": (ProfanityScore, AFINNSentiment),
    }
    found, left_out = [], {}
    for name in names:
        try:
            for part in made[name]:
                if part is not None:
                    part().load()
        except ImportError as error:
            left_out[name] = str(error)
        else:
            found.append(Attribute(name, *made[name], scales[name]))
    return found, left_out


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two prompts, one seed, six steps")
    parser.add_argument("--attributes", nargs="+", default=list(_SCALES), choices=list(_SCALES))
    parser.add_argument("--scale", nargs="*", default=[], metavar="NAME=SCALE", help="reward scales, e.g. fluency=10")
    parser.add_argument("--continuations", type=int, default=3, help="runs of each prompt and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, nargs="+", default=[4, 8], help="values of K")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 4], help="clean texts drawn at a scored step")
    parser.add_argument("--sweeps", type=int, default=1, help="of particle Gibbs with the smallest K; 0 leaves it out")
    parser.add_argument("--pool", type=int, default=48, help="unsteered texts of each run")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--guide", default="fklit:text_guide")
    parser.add_argument("--judge", default="data/parts/smollm2-135m-instruct", help="causal model that judges fluency")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=48, help="rows that a network gets at once; a thousand on a GPU")
    parser.add_argument(
        "--autocast", choices=("bfloat16", "float16"), help="precision of all networks; default float32"
    )
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--shard", type=int, help="compute only this one of the shards, and no table")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/text"))
    given = parser.parse_args(words)
    if given.quick:
        given.continuations, given.seeds, given.particles, given.draws = 1, 1, [2], [1]
        given.steps, given.pool, given.sweeps = 6, 6, 1
    return given


def make_plan(given: argparse.Namespace) -> tuple[Plan, dict[str, str]]:
    """The plan of a command line, and what it leaves out."""
    scales = _SCALES | {name: float(scale) for name, _, scale in (item.partition("=") for item in given.scale)}
    chosen, left_out = attributes(given.attributes, scales, given.guide, given.judge)
    if not chosen:
        raise SystemExit(f"expected a guide that can be loaded, got none: {left_out}")
    arms = [Arm("pool", given.pool)]
    arms += [Arm("fk", k, draws) for k in given.particles for draws in given.draws]
    if given.sweeps:
        arms.append(Arm("gibbs", min(given.particles), max(given.draws), given.sweeps))
    plan = Plan(
        arms=tuple(arms),
        attributes=tuple(chosen),
        prompts=PROMPTS[:2] if given.quick else PROMPTS,
        continuations=given.continuations,
        seeds=tuple(range(given.seeds)),
        sampling=TextSampling(num_steps=given.steps, temperature=given.temperature),
        guide=given.guide,
        judge=given.judge,
        rows=given.rows,
        device=given.device,
        autocast=given.autocast,
    )
    return plan, left_out


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the tables, write the JSON."""
    given = parse(words)
    plan, left_out = make_plan(given)
    folder = given.output / plan.digest
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=150)
    for name, why in left_out.items():
        console.print(f"{name} is left out: {why}")
    with Progress(console=console) as progress:
        bar = progress.add_task("units", total=len(list(plan.units())))
        run_cells(
            plan, folder, shard=given.shard or 0, shards=given.shards if given.shard is not None else 1,
            advance=lambda: progress.advance(bar),
        )  # fmt: skip
    if given.shard is not None:
        missing = sum(not file_of(folder, *unit).is_file() for unit in plan.units())
        console.print(f"{missing} units are left to the other shards; run once without --shard for the table.")
        return {}
    found = summarize(plan, read_cells(folder, plan))
    model = MaskedTextModel.from_folder(plan.model, device=given.device)
    found |= {
        "speed": measure(model, plan.attributes[0].guide().to(given.device), quick=given.quick),
        "settings": {name: str(value) for name, value in vars(given).items() if name not in ("output", "shard")},
        "scales": {attribute.name: attribute.scale for attribute in plan.attributes},
        "left_out": left_out,
        "continuations_per_arm": len(plan.prompts) * plan.continuations * len(plan.seeds),
        "prompts": list(plan.prompts),
        "hardware": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        },
        "versions": {name: version(name) for name in ("fklit", "torch", "transformers")},
    }
    target = given.output / ("quick.json" if given.quick else "text.json")
    part = target.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(part, target)
    show(found, console)
    console.print(f"Written to {target}.")
    return found


def show(found: dict[str, Any], console: Console) -> None:
    """Tables."""
    for name, rows in found["table"].items():
        table = Table(title=f"{name}: chosen text of {found['continuations_per_arm']} runs")
        for column in ("", "guide", "judge", "less best of n (equal calls)", "judge less base", "calls", "seconds"):
            table.add_column(column, justify="left" if not column else "right")
        table.add_column("distinct-1/2/3", justify="right")
        for label, row in rows.items():
            judge = "-" if row["judge"] is None else f"{row['judge']:.3f}"
            gaps = [_interval(row.get(key)) for key in ("less_best_of_n", "judge_less_base")]
            if "equal_n" in row:
                gaps[0] += f" n={row['equal_n']}"
            kinds = "/".join(f"{row[f'distinct_{i}']:.2f}" for i in (1, 2, 3))
            cells = [f"{row['denoiser_calls']:.0f}", f"{row['seconds']:.2f}"]
            table.add_row(label, f"{row['guide']:.3f}", judge, *gaps, *cells, kinds)
        console.print(table)
    for what, figures in found["speed"].items():
        console.print(what, {key: round(value, 3) for key, value in figures.items()})


def _interval(values: Sequence[float] | None) -> str:
    return "" if values is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*values)


if __name__ == "__main__":
    main()
