"""What cheaper scores save, and how well they agree: preview decoders, a latent reward, early stop of scoring.

    python benchmarks/cheaper_scores.py                                  # shipped pipeline and reward; prints JSON
    python benchmarks/cheaper_scores.py --latent FOLDER                  # with a latent reward, alone and early

Every arm is FK steering of the same prompts and seeds; arms alternate, and figures are medians over repetitions of the
ratio to best-of-K in the same repetition: of processor seconds on a CPU, which other processes do not disturb much.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from fklit import steer
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.fast_decoder import FastDecoder, SlowPreviewWarning
from fklit.pipelines.tiny_decoder import TinyDecoder
from fklit.rewards import ImageReward, LatentImageReward
from fklit.steering.preview_agreement import preview_agreement

DECODERS = {
    "channels_last": FastDecoder("float32"),
    "bfloat16, channels_last": FastDecoder("bfloat16"),
    "tiny": TinyDecoder("fklit:emoji_tiny_autoencoder"),
}


def arms(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of each arm beside the shared ones."""
    found: dict[str, dict[str, Any]] = {
        "best-of-K": {"potential": "terminal"},
        "FK": {},
        **{f"FK, {name}": {"preview_decoder": decoder} for name, decoder in DECODERS.items()},
        "FK, stop above P = 0.9": {"stop_scoring_above": math.log(0.9)},
        "FK, tiny, stop above P = 0.9": {"preview_decoder": DECODERS["tiny"], "stop_scoring_above": math.log(0.9)},
    }
    if given.latent is not None:
        found["FK, latent reward alone"] = {"latent_reward": LatentImageReward(given.latent)}
        found["FK, latent before half"] = {"latent_reward": LatentImageReward(given.latent, until=0.5)}
    return found


def call(
    pipeline: Any, reward: Any, prompts: Sequence[str], given: argparse.Namespace, *, seed: int, **arm: Any
) -> Any:
    """One call of an arm: its seconds and its result."""
    start = time.process_time()
    result = steer(
        pipeline,
        list(prompts),
        **{
            "reward": reward,
            "reward_scale": 8.0,
            "num_particles": given.particles,
            "reward_schedule": Schedule(start=0.3, stop=0.8, every=0.1),
            "scheduler": "keep",
            "seed": seed,
            "previews": False,
            "pipeline_kwargs": {"num_inference_steps": given.steps, "guidance_scale": 1.0, "eta": 1.0},
            **arm,
        },
    )
    return time.process_time() - start, result


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_reward")
    parser.add_argument("--latent", default=None, help="folder of a latent reward")
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", SlowPreviewWarning)  # it is measured

    from fklit.emoji.prompts import compositional_prompts
    from fklit.pipelines.source import PipelineSource

    prompts = [prompt.text for prompt in compositional_prompts(given.prompts)]
    pipeline, reward = PipelineSource(given.pipeline).pipeline, ImageReward(given.reward).load()
    table = arms(given)
    for arm in table.values():  # warm up
        call(pipeline, reward, prompts[:1], given, seed=0, **arm)
    runs: dict[str, list[tuple[float, Any]]] = {name: [] for name in table}
    for repeat in track(range(given.repeats), description="repetitions"):
        for name in list(table)[:: 1 if repeat % 2 else -1]:
            runs[name].append(call(pipeline, reward, prompts, given, seed=1 + repeat, **table[name]))
    figures = {}
    for name, found in runs.items():
        ratios = [seconds / base for (seconds, _), (base, _) in zip(found, runs["best-of-K"], strict=True)]
        budgets = [result.budget for _, result in found]
        figures[name] = {
            "ratio to best-of-K": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
            "rows decoded": statistics.mean(budget.decodes for budget in budgets),
            "rows decoded by the preview decoder": statistics.mean(budget.preview_decodes for budget in budgets),
            "rows scored": statistics.mean(budget.reward_calls for budget in budgets),
            "reward of the chosen": statistics.mean(float(result.rewards.amax(1).mean()) for _, result in found),
        }
    options = {"reward": reward, "pipeline_kwargs": {"num_inference_steps": given.steps, "guidance_scale": 1.0}}
    agreement = {}
    for name, decoder in DECODERS.items():
        same = preview_agreement(pipeline, prompts, preview_decoder=decoder, num_particles=given.particles, **options)
        agreement[name] = {
            "largest difference of a pixel": float(same.max_difference.max()),
            "mean difference of a pixel": float(same.mean_difference.max()),
            "least correlation of the rewards": float(same.reward_correlation.min()),
        }
    report = {
        "arms": figures,
        "agreement": agreement,
        "settings": {name: getattr(given, name) for name in ("particles", "prompts", "steps", "repeats", "threads")},
        "hardware": {"system": platform.platform(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("fklit", "torch", "diffusers")},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(text + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    main()
