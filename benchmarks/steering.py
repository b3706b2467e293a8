"""FK steering against best-of-n and the base on prompts of emoji scenes: paired differences with 95 % intervals.

    python benchmarks/steering.py            # 96 test prompts, K = 4 and 8, 5 seeds; resumes where it stopped
    python benchmarks/steering.py --tune     # compares scales and schedules on prompts that the benchmark does not use
    python benchmarks/steering.py --quick    # a few prompts and steps, to see that it runs

Prompts are those of GenEval's tasks that the base fails at (counting, positions, two objects, two colors), half of them
pairs of objects that no training showed together: single objects are nearly always right, with nothing left to gain.
`--mixed` takes half of them from all six tasks.

What is measured. An *arm* is a way to sample; each (prompt, arm, K, seed) is one cell, one line of JSON, and a cell
that is on disk is not computed again. The unsteered arm is a pool of N samples with the same sampler and eta as FK
steering. The base is a random one of them, best-of-n the best of a random n of them: their figures are exact means over
all subsets of size n, which is best-of-n with less noise. "Equal denoiser calls" is n = K; equal seconds are those of
`benchmarks/beyond.py`, by a stopwatch. A pool at eta 0 stands for the usual deterministic sampler.

Intervals: differences are averaged over seeds within a prompt, then prompts are drawn again (percentile bootstrap), so
seeds of a prompt do not count as independent.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from steering_cells import FIRST, SCALE, Arm, Plan
from steering_process import add_arguments, computed, write
from steering_summary import summarize
from steering_tables import show, show_tuning

from fklit.emoji.prompts import ScenePrompt, compositional_prompts, test_prompts


def mixed_prompts(number: int) -> list[ScenePrompt]:
    """Prompts of all six tasks, the second half of them held-out pairs."""
    pairs = test_prompts(number // 2, held_out=True, tags=("position", "two_object", "color_attr"))
    return [*test_prompts(number - len(pairs), held_out=False), *pairs]


def make_plan(given: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    if given.tune:
        prompts = compositional_prompts(given.prompts, "tune")
        scales = [float(s) for s in given.scales.split(",")]
        schedules = [tuple(float(x) for x in s.split(":")) for s in given.schedules.split(",")]
        arms = [Arm("unsteered", given.pool)]
        for potential, scale, window, threshold, first in itertools.product(
            given.potentials, scales, schedules, given.thresholds, given.firsts
        ):
            steps = ":".join(f"{x:g}" for x in window)
            name = f"{potential} x {scale:g} from {first:g}, steps {steps}, ess {threshold:g}"
            arms.append(Arm(name, given.particles[0], 1.0, scale, window, potential, threshold, first))
        seeds = range(100, 100 + given.seeds)
    else:
        prompts = mixed_prompts(given.prompts) if given.mixed else compositional_prompts(given.prompts)
        arms = [Arm("unsteered", given.pool), Arm("unsteered_eta0", max(given.particles), 0.0)]
        arms += [Arm("fk", k, 1.0, given.scale) for k in given.particles]
        seeds = range(given.seeds)
    return Plan(
        tuple(arms),
        tuple(prompts),
        tuple(seeds),
        given.steps,
        given.guidance,
        given.pipeline,
        given.reward,
        given.judge,
        given.device,
        given.rows,
        given.autocast,
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="compare settings on the tune prompts")
    parser.add_argument("--quick", action="store_true", help="four prompts, one seed, six steps")
    parser.add_argument("--prompts", type=int, default=None, help="prompts (96; 24 with --tune)")
    parser.add_argument("--mixed", action="store_true", help="single objects and colors among the prompts, too")
    parser.add_argument("--seeds", type=int, default=None, help="seeds of each prompt (5; 2 with --tune)")
    parser.add_argument("--particles", type=int, nargs="+", default=None, help="values of K (4 8; 4 with --tune)")
    parser.add_argument("--guidance", type=float, default=1.0, help="1 samples the model's own p(x | prompt)")
    parser.add_argument("--scale", type=float, default=SCALE, help="reward scale of the benchmark")
    parser.add_argument("--scales", default="4,8,16,32", help="--tune: reward scales")
    parser.add_argument("--schedules", default="0.3:0.8:0.1,0.3:0.6:0.1", help="--tune: start:stop:every, ...")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5], help="--tune: ESS thresholds")
    parser.add_argument("--firsts", type=float, nargs="+", default=[FIRST], help="--tune: shares the scale starts from")
    parser.add_argument("--potentials", nargs="+", default=["difference"], help="--tune: potentials")
    add_arguments(parser)
    given = parser.parse_args(words)
    if given.quick:
        given.prompts, given.seeds, given.particles, given.steps, given.pool = 4, 1, [4], 6, 12
    given.prompts = given.prompts or (24 if given.tune else 96)
    given.seeds = given.seeds or (2 if given.tune else 5)
    given.particles = given.particles or ([4] if given.tune else [4, 8])
    given.processes = max(1, min(given.processes, given.seeds * math.ceil(given.prompts / 12)))
    return given


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the table, write the JSON."""
    words = list(sys.argv[1:] if words is None else words)
    given = parse(words)
    plan = make_plan(given)
    console = Console(width=150)
    cells = computed(__file__, words, given, plan, console)
    if cells is None:
        return {}
    summary = summarize(plan, cells)
    name = "tune" if given.tune else "quick" if given.quick else "steering"
    (show_tuning if given.tune else show)(summary, console)
    write(summary, given.output / f"{name}.json", given, plan, console)
    return summary


if __name__ == "__main__":
    main()
