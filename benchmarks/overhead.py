"""What steering costs beyond sampling: FK(K) against best-of-K on the same pipeline, and resampling against peers.

    python benchmarks/overhead.py                # shipped pipeline, interleaved repetitions; prints JSON
    python benchmarks/overhead.py --peer-python VENV/bin/python   # an interpreter that has blackjax or particles

Net time is wall time less what the decoder and the reward took (both are timed where they are called), so it is what
the denoiser, the scheduler and the particle system need. Both methods run the same call; they alternate, and the
figures are medians with the quartiles of the ratio of neighbors in time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from fklit import steer
from fklit.feynman_kac.resampling import systematic
from fklit.feynman_kac.schedule import Schedule

SIZES = ((64, 4096), (1, 1_000_000))


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[list[float]]:
    """Lists the seconds of a module's calls within the context (on a CPU, where a call that returns is done)."""
    starts: list[float] = []
    seconds: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
    after = module.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - starts.pop()))
    try:
        yield seconds
    finally:
        before.remove()
        after.remove()


def time_call(
    pipeline: Any, reward: Any, prompts: Sequence[str], seed: int, *, steered: bool, given: Any
) -> dict[str, float]:
    """One call with its seconds: in all, in the decoder, in the reward, and net of both."""
    with watched(pipeline.vae.decoder) as decoding, watched(reward) as scoring:
        start = time.perf_counter()
        result = steer(
            pipeline,
            list(prompts),
            reward=reward,
            num_particles=given.particles,
            potential="difference" if steered else "terminal",
            reward_scale=given.scale,
            reward_schedule=Schedule(start=0.2, stop=0.9, every=0.1),
            ess_threshold=1.0,  # resample at every scheduled step: the most that steering can cost
            seed=seed,
            scheduler="keep",
            previews=False,
            pipeline_kwargs={"num_inference_steps": given.steps, "guidance_scale": 3.0, "eta": 1.0},
        )
        total = time.perf_counter() - start
    return {
        "total": total,
        "decode": sum(decoding),
        "reward": sum(scoring),
        "net": total - sum(decoding) - sum(scoring),
        "resamplings": float(result.resampled.double().sum() / len(prompts)),
    }


def pipeline_overhead(pipeline: Any, reward: Any, prompts: Sequence[str], given: Any) -> dict[str, Any]:
    """Alternate best-of-K and FK(K) calls; which of the two is first alternates, too."""
    reward.load()
    for steered in (False, True):  # warm both up
        time_call(pipeline, reward, prompts, 0, steered=steered, given=given)
    runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for i in track(range(given.repeats), description="repetitions"):
        for steered in (False, True) if i % 2 else (True, False):
            runs[steered].append(time_call(pipeline, reward, prompts, i, steered=steered, given=given))
    figures: dict[str, Any] = {}
    for name, steered in (("best_of_n", False), ("fk", True)):
        keys = runs[steered][0]
        figures[name] = {key: statistics.median(run[key] for run in runs[steered]) for key in keys}
    for key in ("net", "total"):
        ratios = [fk[key] / best[key] for fk, best in zip(runs[True], runs[False], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        figures[f"ratio_{key}"] = {"median": statistics.median(ratios), "quartiles": [quartiles[0], quartiles[2]]}
    return figures


def time_resampler(groups: int, particles: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of systematic resampling of log weights (groups, particles), float64, spread 2."""
    generator = torch.Generator().manual_seed(0)
    log_weights = 2 * torch.randn(groups, particles, generator=generator, dtype=torch.float64)
    systematic(log_weights, generator)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        systematic(log_weights, generator)
        times.append(time.perf_counter() - start)
    return {"milliseconds": 1000 * statistics.median(times)}


# Runs in a peer's own interpreter, which needs neither torch nor fklit.
PEER = """
import json, statistics, sys, time
import numpy as np
sizes, repeats = json.loads(sys.argv[1]), int(sys.argv[2])
found = {}

def measure(call):
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter(); call(); times.append(time.perf_counter() - start)
    return {"milliseconds": 1000 * statistics.median(times)}

def log_weights(groups, particles):
    return 2 * np.random.default_rng(0).standard_normal((groups, particles))

def weights(logw):  # every library starts from log weights
    w = np.exp(logw - logw.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    return w

try:
    import jax
    jax.config.update("jax_enable_x64", True)
    from importlib.metadata import version
    from blackjax.smc.resampling import systematic
    out = {"version": version("blackjax")}
    for groups, particles in sizes:
        w = jax.numpy.asarray(log_weights(groups, particles))
        keys = jax.random.split(jax.random.key(0), groups)
        run = jax.jit(jax.vmap(lambda key, row: systematic(key, jax.nn.softmax(row), particles)))
        out[f"{groups} x {particles}"] = measure(lambda: run(keys, w).block_until_ready())
    found["blackjax"] = out
except ImportError as error:
    found["blackjax"] = f"not measured: {error}"
try:
    from importlib.metadata import version
    from particles.resampling import systematic as classic
    out = {"version": version("particles")}
    for groups, particles in sizes:
        logw = log_weights(groups, particles)
        out[f"{groups} x {particles}"] = measure(lambda: [classic(row) for row in weights(logw)])
    found["particles"] = out
except ImportError as error:
    found["particles"] = f"not measured: {error}"
print(json.dumps(found))
"""


def peers(interpreters: Sequence[str], repeats: int) -> dict[str, Any]:
    """Times of the peers' systematic resampling, from the first interpreter that has them."""
    found: dict[str, Any] = {}
    for interpreter in interpreters:
        command = [interpreter, "-c", PEER, json.dumps(SIZES), str(repeats)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{interpreter} failed on the peers: {done.stderr.strip().splitlines()[-1]}")
        for name, figures in json.loads(done.stdout.splitlines()[-1]).items():
            if not isinstance(found.get(name), dict):
                found[name] = figures
    return found


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scale", type=float, default=None, help="reward scale; the reward's own if left out")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; left as they are if not given")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_clip")
    parser.add_argument("--peer-python", nargs="*", default=[], help="interpreters with blackjax or particles")
    parser.add_argument("--quick", action="store_true", help="two repetitions of ten steps")
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    given = parser.parse_args(words)
    if given.quick:
        given.repeats, given.steps = 2, 10
    if given.threads is not None:
        torch.set_num_threads(given.threads)

    from fklit.emoji.prompts import test_prompts
    from fklit.pipelines.source import PipelineSource
    from fklit.rewards.clip import CLIPScore

    prompts = [prompt.text for prompt in test_prompts(given.prompts, tags=("position", "two_object"))]
    sizes = {f"{b} x {k}": time_resampler(b, k, 3 if given.quick else 20) for b, k in SIZES}
    report = {
        "pipeline": pipeline_overhead(PipelineSource(given.pipeline).pipeline, CLIPScore(given.reward), prompts, given),
        "systematic resampling": {
            "fklit": sizes,
            **peers([sys.executable, *given.peer_python], 3 if given.quick else 20),
        },
        "settings": {name: getattr(given, name) for name in ("particles", "prompts", "steps", "repeats")},
        "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("fklit", "torch", "diffusers")},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        part = given.output.with_name(given.output.name + ".part")
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, given.output)
    return report


if __name__ == "__main__":
    main()
