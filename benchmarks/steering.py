"""FK steering against best-of-n and the base on prompts of emoji scenes: paired differences with 95 % intervals.

    python benchmarks/steering.py            # 64 test prompts, K = 4 and 8, 5 seeds; resumes where it stopped
    python benchmarks/steering.py --tune     # compares scales and schedules on prompts that the benchmark does not use
    python benchmarks/steering.py --quick    # a few prompts and steps, to see that it runs

Prompts are those of GenEval's tasks that the base fails at (counting, positions, two objects, two colors), half of them
pairs of objects that no training showed together: single objects are nearly always right, with nothing left to gain.
`--mixed` takes half of them from all six tasks.

What is measured. An *arm* is a way to sample; each (prompt, arm, K, seed) is one cell, one line of JSON, and a cell
that is on disk is not computed again. The unsteered arm is a pool of N samples with the same sampler and eta as FK
steering. The base is a random one of them, best-of-n the best of a random n of them: their figures are exact means over
all subsets of size n, which is best-of-n with less noise. "Equal denoiser calls" is n = K; "equal seconds" is the n
whose samples take as long as FK's K (rounded up). A pool at eta 0 stands for the usual deterministic sampler. Seconds
are those of the calls of this benchmark, each on one thread, all of about as many samples.

Intervals: differences are averaged over seeds within a prompt, then prompts are drawn again (percentile bootstrap), so
seeds of a prompt do not count as independent.
"""

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from steering_cells import FIRST, SCALE, Arm, Plan, fingerprints, key, read_cells, run_cells
from steering_summary import summarize
from steering_tables import show, show_tuning

from fklit import assets
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
    )


def load_models(plan: Plan) -> tuple[Any, Any, Any]:
    """Pipeline, reward and judge."""
    from fklit.metrics.detector import Judge
    from fklit.pipelines.source import PipelineSource
    from fklit.rewards import CLIPScore, ImageReward

    judge = Judge(None if plan.judge.startswith("fklit:") else plan.judge).to(plan.device)
    # The folders of open_clip have another configuration file.
    folder = assets.shipped(plan.reward) or Path(plan.reward)
    kind = CLIPScore if (folder / "open_clip_config.json").is_file() else ImageReward
    return PipelineSource(plan.pipeline).load().to(plan.device).pipeline, kind(plan.reward).to(plan.device), judge


def wait(plan: Plan, folder: Path, workers: list[subprocess.Popen[bytes]], console: Console) -> None:
    """Show how many cells there are until the workers have ended."""
    wanted = {key(arm, prompt.text, seed) for arm in plan.arms for prompt in plan.prompts for seed in plan.seeds}
    bars = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*bars, console=console) as progress:
        bar = progress.add_task("", total=len(wanted))
        while True:
            running = [worker for worker in workers if worker.poll() is None]
            progress.update(bar, completed=len(wanted & set(read_cells(folder))))
            if not running:
                break
            time.sleep(2)
    if any(worker.returncode for worker in workers):
        raise SystemExit("A worker failed (its message is above); run the same command again to go on.")


def spawn(script: str, words: Sequence[str], shards: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a script once for each shard, with one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for shard in range(shards):
        command = [sys.executable, script, *words, "--shard", str(shard)]
        yield subprocess.Popen(command, env=environment)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="compare settings on the tune prompts")
    parser.add_argument("--quick", action="store_true", help="four prompts, one seed, six steps")
    parser.add_argument("--prompts", type=int, default=None, help="prompts (64; 24 with --tune)")
    parser.add_argument("--mixed", action="store_true", help="single objects and colors among the prompts, too")
    parser.add_argument("--seeds", type=int, default=None, help="seeds of each prompt (5; 2 with --tune)")
    parser.add_argument("--particles", type=int, nargs="+", default=None, help="values of K (4 8; 4 with --tune)")
    parser.add_argument("--pool", type=int, default=32, help="unsteered samples of each prompt")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=1.0, help="1 samples the model's own p(x | prompt)")
    parser.add_argument("--scale", type=float, default=SCALE, help="reward scale of the benchmark")
    parser.add_argument("--scales", default="4,8,16,32", help="--tune: reward scales")
    parser.add_argument("--schedules", default="0.3:0.8:0.1,0.3:0.6:0.1", help="--tune: start:stop:every, ...")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5], help="--tune: ESS thresholds")
    parser.add_argument("--firsts", type=float, nargs="+", default=[FIRST], help="--tune: shares the scale starts from")
    parser.add_argument("--potentials", nargs="+", default=["difference"], help="--tune: potentials")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_reward", help="shipped name or folder")
    parser.add_argument("--device", default="cpu", help="cuda, cpu, ...; one process is enough for a GPU")
    parser.add_argument("--rows", type=int, default=48, help="samples in a call; some thousand on a GPU")
    parser.add_argument("--judge", default="fklit:emoji_judge")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/steering"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--shard", type=int, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.quick:
        given.prompts, given.seeds, given.particles, given.steps, given.pool = 4, 1, [4], 6, 12
    given.prompts = given.prompts or (24 if given.tune else 64)
    given.seeds = given.seeds or (2 if given.tune else 5)
    given.particles = given.particles or ([4] if given.tune else [4, 8])
    given.processes = max(1, min(given.processes, given.seeds * math.ceil(given.prompts / 12)))
    return given


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the table, write the JSON."""
    words = list(sys.argv[1:] if words is None else words)
    given = parse(words)
    plan = make_plan(given)
    folder = given.output / plan.digest
    folder.mkdir(parents=True, exist_ok=True)
    if given.shard is not None:
        torch.set_num_threads(1)
        run_cells(plan, folder, models=load_models(plan), shard=given.shard, shards=given.processes)
        return {}
    console = Console(width=150)
    wait(plan, folder, list(spawn(__file__, words, given.processes)), console)
    summary = summarize(plan, read_cells(folder))
    summary |= {
        "settings": {
            **{
                name: str(getattr(given, name))
                for name in ("steps", "guidance", "prompts", "seeds", "processes", "device", "rows")
            }
        },
        "models": fingerprints(plan),
        "prompts": [{"prompt": p.text, "tag": p.tag, "held_out": p.held_out} for p in plan.prompts],
        "hardware": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        },
        "versions": {name: version(name) for name in ("fklit", "torch", "diffusers", "open-clip-torch")},
    }
    target = given.output / ("tune.json" if given.tune else "quick.json" if given.quick else "steering.json")
    part = target.with_suffix(".part")
    part.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    os.replace(part, target)
    (show_tuning if given.tune else show)(summary, console)
    console.print(f"Written to {target}.")
    return summary


if __name__ == "__main__":
    main()
