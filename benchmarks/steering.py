"""FK steering against best-of-n and the base on prompts of emoji scenes: paired differences with 95 % intervals.

    python benchmarks/steering.py            # 64 test prompts, K = 4 and 8, 5 seeds; resumes where it stopped
    python benchmarks/steering.py --tune     # compares scales and schedules on prompts that the benchmark does not use
    python benchmarks/steering.py --quick    # a few prompts and steps, to see that it runs

Prompts are those of GenEval's tasks that the base fails at (counting, positions, two objects, two colors), half of them
pairs of objects that no training showed together: single objects are nearly always right, with nothing left to gain.

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
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fklit import assets, steer
from fklit.emoji.prompts import ScenePrompt, compositional_prompts
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Linear
from fklit.report.charts import bootstrap_interval
from fklit.sampling.describe import settings_hash

# Chosen with --tune, on prompts that the benchmark does not use.
POTENTIAL, SCALE, SCHEDULE, ESS_THRESHOLD, FIRST = "difference", 8.0, (0.2, 0.8, 0.1), 0.5, 1.0


@dataclass(frozen=True)
class Arm:
    """A way to sample ``k`` samples of a prompt; ``scale`` None stands for unsteered sampling."""

    name: str
    k: int
    eta: float = 1.0
    scale: float | None = None
    schedule: tuple[float, float, float] = SCHEDULE
    potential: str = POTENTIAL
    ess_threshold: float = ESS_THRESHOLD
    first: float = FIRST  # share of the scale at which its line to the full one starts; 1 for a constant scale


@dataclass(frozen=True)
class Plan:
    """Everything that determines the cells."""

    arms: tuple[Arm, ...]
    prompts: tuple[ScenePrompt, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    pipeline: str
    reward: str
    judge: str
    device: str = "cpu"
    rows: int = 48  # every call of every arm has about as many samples, so that seconds compare

    @property
    def digest(self) -> str:
        """Hash of the settings that all cells share; arms, prompts and seeds are told apart by the cells themselves."""
        return settings_hash({"steps": self.steps, "guidance": self.guidance, **fingerprints(self)})[:12]

    def units(self) -> list[tuple[int, tuple[int, ...]]]:
        """Seeds and groups of prompts, the grain at which work is shared: all arms of a unit run after one another."""
        size = max(12, self.rows // 4)
        group = range(0, len(self.prompts), size)
        return [(s, tuple(range(i, min(i + size, len(self.prompts))))) for s in self.seeds for i in group]


def fingerprints(plan: Plan) -> dict[str, Any]:
    """Contents of the models, so that retrained ones are measured anew."""
    from fklit.fingerprint import fingerprint

    names = (plan.pipeline, plan.reward, plan.judge)
    return {name: fingerprint(assets.path(name.split(":", 1)[1]) if ":" in name else Path(name)) for name in names}


def key(arm: Arm, prompt: str, seed: int) -> str:
    """Name of a cell."""
    return json.dumps([asdict(arm), prompt, seed], sort_keys=True)


def read_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """All finished cells; a line cut short by a crash is passed over."""
    cells = {}
    for path in sorted(folder.glob("cells.*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                cell = json.loads(line)
            except ValueError:
                continue
            cells[cell["key"]] = cell
    return cells


def append(path: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Add lines in one write; what a crash leaves of it is a broken line, which does not count."""
    text = "".join(json.dumps(cell) + "\n" for cell in cells)
    fresh = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, (("" if fresh else "\n") + text).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run_cells(plan: Plan, folder: Path, *, models: tuple[Any, Any, Any], shard: int = 0, shards: int = 1) -> None:
    """Compute this shard's cells that are not on disk.

    Args:
        plan: what to compute.
        folder: where the cells are.
        models: pipeline, reward and judge.
        shard: which of the ``shards`` processes this one is.
        shards: number of processes.
    """
    pipeline, reward, judge = models
    done = set(read_cells(folder))
    for seed, indices in plan.units()[shard::shards]:
        for arm in plan.arms:
            todo = [i for i in indices if key(arm, plan.prompts[i].text, seed) not in done]
            size = max(1, plan.rows // arm.k)
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]
                append(folder / f"cells.{shard}.jsonl", _call(plan, arm, seed, batch, pipeline, reward, judge))


def _call(
    plan: Plan, arm: Arm, seed: int, batch: list[int], pipeline: Any, reward: Any, judge: Any
) -> list[dict[str, Any]]:
    prompts = [plan.prompts[i] for i in batch]
    start, stop, every = arm.schedule
    result = steer(
        pipeline,
        [prompt.text for prompt in prompts],
        reward=reward,
        num_particles=arm.k,
        potential="terminal" if arm.scale is None else arm.potential,
        reward_scale=1.0 if arm.scale is None else arm.scale,
        reward_schedule=Schedule(start=start, stop=stop, every=every),
        ess_threshold=arm.ess_threshold,
        tempering=Linear(arm.first),
        seed=seed,
        # Noise follows from the prompt, not from its place in a list that another run may order otherwise.
        prompt_indices=[zlib.crc32(prompt.text.encode()) for prompt in prompts],
        scheduler="keep",
        previews=False,
        pipeline_kwargs={"num_inference_steps": plan.steps, "guidance_scale": plan.guidance, "eta": arm.eta},
    )
    cells = []
    for b, prompt in enumerate(prompts):
        verdicts = judge.judge(result.samples[b], [prompt.metadata()] * arm.k)
        record = result.record(b)
        cells.append(
            {
                "key": key(arm, prompt.text, seed),
                "arm": arm.name,
                "k": arm.k,
                "seed": seed,
                "prompt": prompt.text,
                "tag": prompt.tag,
                "held_out": prompt.held_out,
                "rewards": record["rewards"],
                "weights": result.log_weights[b].exp().tolist(),
                "judge": [float(verdict.correct) for verdict in verdicts],
                "best": record["best"],
                "unique_roots": record["unique_roots"],
                "resampled": sum(record["resampled"]),
                **record["budget"],
            }
        )
    return cells


def best_of(n: int, rewards: Sequence[float], values: Sequence[float]) -> float:
    """Mean, over all subsets of size n of the pool, of the value of the subset's sample with the highest reward."""
    size = len(rewards)
    if not 1 <= n <= size:
        raise ValueError(f"best of {n} was asked from a pool of {size}; raise --pool.")
    order = np.argsort(-np.asarray(rewards), kind="stable")
    total = math.comb(size, n)
    chances = [math.comb(size - 1 - rank, n - 1) / total for rank in range(size)]
    return float(np.dot(chances, np.asarray(values)[order]))


def fk_values(cell: dict[str, Any]) -> dict[str, float]:
    """Figures of a steered cell."""
    return {
        "reward_best": cell["rewards"][cell["best"]],
        "judge": cell["judge"][cell["best"]],
        "reward_mean": float(np.dot(cell["weights"], cell["rewards"])),
        "judge_mean": float(np.dot(cell["weights"], cell["judge"])),
        "unique_roots": cell["unique_roots"],
    }


def pool_values(cell: dict[str, Any], n: int) -> dict[str, float]:
    """Figures of best-of-n from a pool."""
    return {
        "reward_best": best_of(n, cell["rewards"], cell["rewards"]),
        "judge": best_of(n, cell["rewards"], cell["judge"]),
        "reward_mean": float(np.mean(cell["rewards"])),
        "judge_mean": float(np.mean(cell["judge"])),
        "unique_roots": float(n),
    }


Values = dict[tuple[str, int], dict[str, float]]  # (prompt, seed) -> figures


def difference(ours: Values, theirs: Values, figure: str, other: str | None = None) -> dict[str, Any]:
    """Mean paired difference with its interval over prompts."""
    shared = sorted(set(ours) & set(theirs))
    by_prompt: dict[str, list[float]] = {}
    for cell in shared:
        by_prompt.setdefault(cell[0], []).append(ours[cell][figure] - theirs[cell][other or figure])
    means = np.array([np.mean(gaps) for gaps in by_prompt.values()])
    low, high = bootstrap_interval(means)
    return {"mean": float(means.mean()), "low": low, "high": high, "prompts": len(means), "cells": len(shared)}


def seconds_per_sample(cells: list[dict[str, Any]]) -> float:
    """Seconds of one sample of an arm: the median over cells, so that a busy minute of the machine does not count."""
    return float(np.median([cell["seconds"] / cell["k"] for cell in cells]))


def best_of_n(pool: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge of best-of-n for growing n, and what searching four times as much as n = 8 changes."""
    values = {
        n: {(cell["prompt"], cell["seed"]): pool_values(cell, n) for cell in pool}
        for n in (1, 2, 4, 8, 16, 32)
        if pool and n <= pool[0]["k"]
    }
    found: dict[str, Any] = {
        "judge": {str(n): float(np.mean([v["judge"] for v in at.values()])) for n, at in values.items()}
    }
    if 32 in values:
        found["judge, 32 less 8"] = difference(values[32], values[8], "judge")
    return found


def summarize(plan: Plan, cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means of every arm and paired differences of the steered arms."""
    by_arm: dict[Arm, list[dict[str, Any]]] = {arm: [] for arm in plan.arms}
    for arm in plan.arms:
        for prompt in plan.prompts:
            for seed in plan.seeds:
                cell = cells.get(key(arm, prompt.text, seed))
                if cell is not None:
                    by_arm[arm].append(cell)
    pools = {arm.name: arm for arm in plan.arms if arm.scale is None}
    main_pool = pools["unsteered"]
    held_out = {prompt.text for prompt in plan.prompts if prompt.held_out}

    def values(arm: Arm, n: int | None = None) -> Values:
        return {(c["prompt"], c["seed"]): fk_values(c) if n is None else pool_values(c, n) for c in by_arm[arm]}

    rows = []
    for arm in plan.arms:
        if arm.scale is None:
            continue
        cost = seconds_per_sample(by_arm[arm]) / seconds_per_sample(by_arm[main_pool])
        longer = math.ceil(arm.k * cost)
        if longer > main_pool.k:
            raise SystemExit(
                f"Equal seconds means best of {longer}, the pool has {main_pool.k}; raise --pool to {longer}."
            )
        ours, base = values(arm), values(main_pool, 1)
        rivals = {"best_of_n, equal denoiser calls": values(main_pool, arm.k)}
        rivals["best_of_n, equal seconds"] = values(main_pool, longer)
        if "unsteered_eta0" in pools:
            rivals["best_of_n, deterministic sampler"] = values(pools["unsteered_eta0"], arm.k)
        figures = {name: float(np.mean([v[name] for v in ours.values()])) for name in next(iter(ours.values()))}
        row: dict[str, Any] = {
            "arm": asdict(arm),
            "fk": figures,
            "seconds_over_best_of_n": cost,
            "n_at_equal_seconds": longer,
        }
        row["resamplings"] = float(np.mean([cell["resampled"] for cell in by_arm[arm]]))
        row["base"] = {name: float(np.mean([v[name] for v in base.values()])) for name in ("reward_mean", "judge_mean")}
        row["fk - base"] = {
            "reward_best": difference(ours, base, "reward_best", "reward_mean"),
            "judge": difference(ours, base, "judge", "judge_mean"),
            "reward_mean": difference(ours, base, "reward_mean"),
            "judge_mean": difference(ours, base, "judge_mean"),
        }
        for label, theirs in rivals.items():
            row[label] = {f: float(np.mean([v[f] for v in theirs.values()])) for f in ("reward_best", "judge")}
            row[f"fk - {label}"] = {figure: difference(ours, theirs, figure) for figure in ("reward_best", "judge")}
        for name, wanted in (("held-out pairs", True), ("other prompts", False)):
            subset = {cell: v for cell, v in ours.items() if (cell[0] in held_out) == wanted}
            if subset:
                row[f"{name}: fk - best_of_n, equal denoiser calls"] = {
                    figure: difference(subset, rivals["best_of_n, equal denoiser calls"], figure)
                    for figure in ("reward_best", "judge")
                }
        rows.append(row)
    costs = {f"{arm.name}, K={arm.k}": seconds_per_sample(found) for arm, found in by_arm.items() if found}
    headline = {
        f"K{row['arm']['k']}": {
            figure: [row["fk - best_of_n, equal denoiser calls"][name][end] for end in ("mean", "low", "high")]
            for figure, name in (("judge", "judge"), ("reward", "reward_best"))
        }
        for row in rows
        if row["arm"]["name"] == "fk"
    }
    summary = {"fk_less_best_of_n": headline, "best_of_n": best_of_n(by_arm[main_pool])}
    return {
        "summary": summary,
        "rows": rows,
        "seconds_per_sample": costs,
        "cells": sum(len(found) for found in by_arm.values()),
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="mean over prompts [95 % interval of the paired difference over prompts]")
    for name in ("", "K", "reward of the chosen", "judge of the chosen"):
        table.add_column(name)
    for row in summary["rows"]:
        k = str(row["arm"]["k"])
        fk, base = row["fk"], row["base"]
        table.add_row(f"[b]{row['arm']['name']}[/b]", k, f"[b]{fk['reward_best']:.4f}[/b]", f"[b]{fk['judge']:.3f}[/b]")
        table.add_row("base (mean of its samples)", k, f"{base['reward_mean']:.4f}", f"{base['judge_mean']:.3f}")
        for label in (name for name in row if name.startswith("best_of_n")):
            n = row["n_at_equal_seconds"] if "seconds" in label else k
            table.add_row(f"{label} (n = {n})", k, f"{row[label]['reward_best']:.4f}", f"{row[label]['judge']:.3f}")
        for label in (name for name in row if "fk - " in name):
            cells = []
            for figure in ("reward_best", "judge"):
                gap = row[label][figure]
                cells.append(f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")
            table.add_row(label, k, *cells)
        table.add_section()
    console.print(table)
    for row in summary["rows"]:
        console.print(
            f"{row['arm']['name']} K={row['arm']['k']}: {row['seconds_over_best_of_n']:.3f} times the seconds of "
            f"best-of-n, {row['resamplings']:.1f} resamplings a prompt, {row['fk']['unique_roots']:.2f} ancestors left"
        )


def show_tuning(summary: dict[str, Any], console: Console) -> None:
    """Print a line an arm, the best reward first."""
    table = Table(title="FK less best-of-n at equal denoiser calls, on tune prompts [95 % interval over prompts]")
    for name in ("arm", "reward of the chosen", "judge of the chosen", "resamplings", "ancestors left"):
        table.add_column(name)
    label = "fk - best_of_n, equal denoiser calls"
    for row in sorted(summary["rows"], key=lambda row: -row[label]["reward_best"]["mean"]):
        gaps = [row[label][figure] for figure in ("reward_best", "judge")]
        cells = [f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" for gap in gaps]
        table.add_row(row["arm"]["name"], *cells, f"{row['resamplings']:.1f}", f"{row['fk']['unique_roots']:.2f}")
    console.print(table)


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
        prompts = compositional_prompts(given.prompts)
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


def _wait(plan: Plan, folder: Path, workers: list[subprocess.Popen[bytes]], console: Console) -> None:
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


def _spawn(words: Sequence[str], shards: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for shard in range(shards):
        command = [sys.executable, __file__, *words, "--shard", str(shard)]
        yield subprocess.Popen(command, env=environment)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="compare settings on the tune prompts")
    parser.add_argument("--quick", action="store_true", help="four prompts, one seed, six steps")
    parser.add_argument("--prompts", type=int, default=None, help="prompts (64; 24 with --tune)")
    parser.add_argument("--seeds", type=int, default=None, help="seeds of each prompt (5; 2 with --tune)")
    parser.add_argument("--particles", type=int, nargs="+", default=None, help="values of K (4 8; 4 with --tune)")
    parser.add_argument("--pool", type=int, default=32, help="unsteered samples of each prompt")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=1.0, help="1 samples the model's own p(x | prompt)")
    parser.add_argument("--scale", type=float, default=SCALE, help="reward scale of the benchmark")
    parser.add_argument("--scales", default="2,4,8,16", help="--tune: reward scales")
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
    _wait(plan, folder, list(_spawn(words, given.processes)), console)
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
