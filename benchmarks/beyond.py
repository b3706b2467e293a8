"""Which way of steering beats best-of-n, at equal denoiser calls and at equal measured seconds.

    python benchmarks/beyond.py --tune             # all methods on prompts that the benchmark does not use
    python benchmarks/beyond.py --method "three scores"   # the chosen one and the others on 96 test prompts x 5 seeds
    python benchmarks/beyond.py --quick            # a few prompts and steps, to see that it runs

The cells, prompts, pool and intervals are those of `benchmarks/steering.py`, whose results it takes over where they lie
in the same folder. A method is fixed with `--method` before the reported run, from what `--tune` printed.

Equal calls: n is the mean number of denoiser calls of a steered prompt over those of one unsteered sample, a call with
a gradient counting three times. Equal seconds: n is the ratio of seconds measured by a stopwatch, arms alternating. For
n = 4.6 best-of-n is a mixture of best of 4 and best of 5 of that mean; n rounded up stands beside it. Sequential
best-of-n, which stops at a good sample, stands beside every row.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from beyond_summary import summarize
from full_size_costs import NAMES, costs
from rich.console import Console
from rich.table import Table
from steering_cells import SCALE, Arm, Plan
from steering_methods import METHODS
from steering_process import add_arguments, computed, load_models, write
from steering_stopwatch import measured

from fklit.emoji.prompts import compositional_prompts

SIDE = (
    "",
    "max",
    "calibrated",
    "twisted",
    "three scores",
    "early stop",
    "linear",
    "latent reward",
    "svdd",
    "code",
    "sequential",
)


def make_plan(given: argparse.Namespace) -> Plan:
    """The plan that the command line asks for: all methods at some K, plain and the chosen one at the others."""
    arms = [Arm("unsteered", given.pool)]
    for k in given.particles:
        wanted = given.methods if k in given.side else [m for m in given.methods if m in ("", given.method)]
        arms += [Arm(name or "difference", k, 1.0, given.scale, method=name) for name in wanted]
    # The plain arm is that of `benchmarks/steering.py`, whose cells count.
    arms = [Arm("fk", arm.k, 1.0, arm.scale) if arm.name == "difference" else arm for arm in arms]
    first = 100 if given.tune else given.first_seed
    seeds = tuple(range(first, first + given.seeds))
    prompts = compositional_prompts(given.prompts, "tune" if given.tune else "test")
    return Plan(
        tuple(arms), tuple(prompts), seeds, given.steps, 1.0, given.pipeline, given.reward, given.judge,
        given.device, given.rows, given.autocast,
    )  # fmt: skip


def show(found: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="less best-of-n [95 % interval over prompts]")
    for name in ("method", "K", "reward", "judge", "n by calls", "judge, equal calls", "n by seconds"):
        table.add_column(name)
    for name in ("reward, equal seconds", "judge, equal seconds", "Z / pool's"):
        table.add_column(name)
    for row in found["rows"]:
        gaps = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[a][f]) for a, f in _SHOWN]
        target = row.get("target")
        z = f"{target['z']:.2f} / {target['z_of_pool']:.2f}" if target and target["z"] is not None else ""
        table.add_row(
            row["method"] or "difference", str(row["k"]), f"{row['reward']:.4f}", f"{row['judge']:.3f}",
            f"{row['equal_calls']['n']:.1f}", gaps[0], f"{row['equal_seconds']['n']:.2f}", gaps[1], gaps[2], z,
        )  # fmt: skip
    console.print(table)
    console.print(f"base {found['base']}, best of n {found['best_of_n']}")


_SHOWN = (("equal_calls", "judge"), ("equal_seconds", "reward"), ("equal_seconds", "judge"))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="on the tune prompts, to choose the method")
    parser.add_argument("--quick", action="store_true", help="four prompts, one seed, six steps")
    parser.add_argument(
        "--method", default="", choices=list(METHODS), help="the chosen one; plain difference if omitted"
    )
    parser.add_argument("--methods", nargs="+", default=list(SIDE), choices=list(METHODS))
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=None, help="5; 3 with --tune")
    parser.add_argument("--particles", type=int, nargs="+", default=None, help="4 8; 4 with --tune")
    parser.add_argument("--side", type=int, nargs="+", default=None, help="values of K of all methods; the first K")
    parser.add_argument("--first-seed", type=int, default=0, help="others than those of a run that decided something")
    parser.add_argument("--name", default="beyond", help="of the file")
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--rounds", type=int, default=8, help="of the stopwatch")
    add_arguments(parser)
    given = parser.parse_args(words)
    if given.quick:
        given.prompts, given.seeds, given.particles, given.steps, given.pool = 4, 1, [4], 6, 24
        given.rounds = 1
        given.methods = [name for name in given.methods if name != "calibrated"]  # which is of 30 steps
    given.seeds = given.seeds or (3 if given.tune else 5)
    given.particles = given.particles or ([4] if given.tune else [4, 8])
    given.side = given.side or given.particles[:1]
    given.methods = list(dict.fromkeys([given.method, *given.methods]))
    return given


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the table, write the JSON."""
    words = list(sys.argv[1:] if words is None else words)
    given = parse(words)
    plan = make_plan(given)
    console = Console(width=170)
    cells = computed(__file__, words, given, plan, console)
    if cells is None:
        return {}
    torch.set_num_threads(1)
    folder = given.output / plan.digest
    clock = measured(plan, folder, partial(load_models, plan), given.rounds, console)
    full_size = {title: costs(name, small=given.quick) for name, title in NAMES.items()}
    found = summarize(plan, cells, clock, full_size, given.method)
    found["operations_at_full_size"] = full_size
    ending = "_tune" if given.tune else "_quick" if given.quick else ""
    show(found, console)
    write(found, given.output / f"{given.name}{ending}.json", given, plan, console)
    return found


if __name__ == "__main__":
    main()
