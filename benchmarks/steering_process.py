"""How the steering benchmarks run: their common arguments, processes that share the cells, and the file they write."""

import argparse
import json
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
from steering_cells import Plan, fingerprints, key, read_cells, run_cells

from fklit import assets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that the benchmarks share: models, sampler, and where and how it runs."""
    parser.add_argument("--pool", type=int, default=32, help="unsteered samples of each prompt")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_reward", help="shipped name or folder")
    parser.add_argument("--judge", default="fklit:emoji_judge")
    parser.add_argument("--device", default="cpu", help="cuda, cpu, ...; one process is enough for a GPU")
    parser.add_argument("--autocast", choices=("bfloat16", "float16"), help="precision of all networks but the judge")
    parser.add_argument("--rows", type=int, default=48, help="samples in a call; some thousand on a GPU")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/steering"))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--shard", type=int, default=None, help=argparse.SUPPRESS)


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
            began = time.perf_counter()
            progress.update(bar, completed=len(wanted & set(read_cells(folder))))
            if not running:
                break
            time.sleep(max(2, 20 * (time.perf_counter() - began)))  # to look costs the workers little
    if any(worker.returncode for worker in workers):
        raise SystemExit("A worker failed (its message is above); run the same command again to go on.")


def spawn(script: str, words: Sequence[str], shards: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a script once for each shard, with one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for shard in range(shards):
        command = [sys.executable, script, *words, "--shard", str(shard)]
        yield subprocess.Popen(command, env=environment)


def computed(
    script: str, words: Sequence[str], given: argparse.Namespace, plan: Plan, console: Console
) -> dict[str, dict[str, Any]] | None:
    """Compute the cells that are missing, in processes of their own, and return all; None in such a process."""
    folder = given.output / plan.digest
    folder.mkdir(parents=True, exist_ok=True)
    if given.shard is not None:
        torch.set_num_threads(1)
        run_cells(plan, folder, models=load_models(plan), shard=given.shard, shards=given.processes)
        return None
    wait(plan, folder, list(spawn(script, words, given.processes)), console)
    return read_cells(folder)


def write(found: dict[str, Any], target: Path, given: argparse.Namespace, plan: Plan, console: Console) -> None:
    """Write figures as JSON, with all that they depend on."""
    found |= {
        "settings": {name: str(value) for name, value in vars(given).items() if name not in ("output", "shard")},
        "models": fingerprints(plan),
        "prompts": [{"prompt": p.text, "tag": p.tag, "held_out": p.held_out} for p in plan.prompts],
        "hardware": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device,
        },
        "versions": {name: version(name) for name in ("fklit", "torch", "diffusers", "open-clip-torch")},
    }
    part = target.with_suffix(".part")
    part.write_text(json.dumps(found, indent=2), encoding="utf-8")
    os.replace(part, target)
    console.print(f"Written to {target}.")
