"""How well rewards order generated pictures of one prompt, by the verdicts of a judge that never guides.

    python benchmarks/reward_auc.py --output docs/results/reward_auc.json
    python benchmarks/reward_auc.py --split tune --reward FOLDER    # to choose between trainings

The area under the curve within a prompt is the chance that a picture that the judge finds right scores above one that
it finds wrong, averaged over prompts that have both. Samples are the shipped pipeline's own (30 DDIM steps, eta 1, no
guidance); half of the prompts name pairs of objects that no training of the pipeline has shown together.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fklit
from fklit.emoji.prompts import compositional_prompts
from fklit.feynman_kac.schedule import Schedule
from fklit.metrics import Judge
from fklit.report.charts import bootstrap_interval


def within_prompt_auc(scores: Tensor, right: Tensor) -> float | None:
    """Chance that a right picture (K,) scores above a wrong one; None if there is no such pair."""
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad).double() + 0.5 * (good[:, None] == bad).double()
    return float(above.mean())


def summarize(scores: Tensor, right: Tensor, tags: Sequence[str]) -> dict[str, Any]:
    """AUC over all prompts and by tag, each [mean, low, high, prompts]."""
    found = [within_prompt_auc(scores[b], right[b]) for b in range(len(scores))]
    result = {}
    for tag in ("all", *dict.fromkeys(tags)):
        each = np.array(
            [value for value, own in zip(found, tags, strict=True) if value is not None and tag in ("all", own)]
        )
        low, high = bootstrap_interval(each)
        result[tag] = float(each.mean())
        result[f"{tag}, interval"] = [low, high]
        result[f"{tag}, prompts"] = len(each)
    return result


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Sample, score, judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--split", choices=("test", "tune"), default="test", help="tune has prompts of its own")
    parser.add_argument("--reward", default="fklit:emoji_reward", help="shipped name or folder")
    parser.add_argument("--samples", type=int, default=8, help="of each prompt")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=48, help="samples in a call")
    parser.add_argument("--seed", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/reward_auc.json"))
    given = parser.parse_args(words)
    prompts = compositional_prompts(given.prompts, given.split)
    reward = fklit.rewards.ImageReward(given.reward).to(given.device)
    clip = fklit.rewards.CLIPScore("fklit:emoji_clip").to(given.device)
    judge = Judge().to(given.device)
    pipeline = fklit.PipelineSource("fklit:emoji_scenes").load().to(given.device).pipeline
    parts: dict[str, list[Tensor]] = {"emoji_reward": [], "emoji_clip": [], "right": [], "path": []}
    size = max(given.rows // given.samples, 1)
    schedule = Schedule(start=9, stop=24, every=3)
    for start in range(0, len(prompts), size):
        some = prompts[start : start + size]
        result = fklit.steer(
            pipeline,
            [prompt.text for prompt in some],
            reward=reward,
            num_particles=given.samples,
            reward_scale=1.0,
            reward_schedule=schedule,
            ess_threshold=0.0,  # scores on the way, and never resamples
            seed=given.seed,
            prompt_indices=range(start, start + len(some)),
            scheduler="keep",
            previews=False,
            pipeline_kwargs={"num_inference_steps": 30, "guidance_scale": 1.0, "eta": 1.0},
        )
        lines = [prompt.metadata() for prompt in some for _ in range(given.samples)]
        texts = [line["prompt"] for line in lines]
        pictures = result.samples.flatten(0, 1)
        shape = (len(some), given.samples)
        parts["emoji_reward"].append(result.rewards.cpu())
        parts["emoji_clip"].append(clip(pictures, texts).cpu().view(shape))
        parts["right"].append(torch.tensor([v.correct for v in judge.judge(pictures, lines)]).view(shape))
        parts["path"].append(result.reward_path.cpu())
    joined = {name: torch.cat(found, 1 if name == "path" else 0) for name, found in parts.items()}
    tags = [prompt.tag for prompt in prompts]
    summary: dict[str, Any] = {
        name: summarize(joined[name], joined["right"], tags) for name in ("emoji_reward", "emoji_clip")
    }
    summary["emoji_reward, denoised mean at step"] = {
        str(step): summarize(joined["path"][index], joined["right"], tags)["all"]
        for index, step in enumerate(schedule.resolve(30))
    }
    chance = joined["emoji_reward"].exp()
    summary["right, by probability of the reward"] = {
        f"{low} to {high}": [float(joined["right"][inside].double().mean()), int(inside.sum())]
        for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 0.98), (0.98, 1))
        if (inside := (chance >= low) & (chance <= high)).any()
    }
    summary["settings"] = {
        "prompts": len(prompts),
        "held_out": sum(prompt.held_out for prompt in prompts),
        "samples": given.samples,
        "split": given.split,
        "seed": given.seed,
        "device": given.device,
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: summary[name] for name in list(summary)[:4]}, indent=1))
    return summary


if __name__ == "__main__":
    main()
