"""Seconds of `fklit.steer` beside a plain loop in the style of the published code, on the same model and schedule.

    python benchmarks/plain_loop.py              # shipped pipeline; prints JSON

The loop is our own reading of arXiv 2501.06848, written for this comparison. It takes one prompt a call, copied to K
rows. At each scheduled step, and after the last one, it decodes the predictions of all K particles in full, hands the
pictures to the reward through PIL, and resamples; the final latents are decoded once more. `fklit.steer` takes all
prompts in one call. Arms alternate; figures are ratios of sums of processor seconds on a CPU, of a clock elsewhere.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from steering_cells import SCALE, SCHEDULE
from steering_stopwatch import ratio
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from fklit import steer
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.tiny_decoder import TinyDecoder

TINY = TinyDecoder("fklit:emoji_tiny_autoencoder")


@torch.no_grad()
def plain_loop(
    pipeline: Any, reward: Any, prompt: str, scheduled: Sequence[int], given: argparse.Namespace, seed: int
) -> tuple[Tensor, Tensor]:
    """Steer one prompt; return images (K, c, h, w) in [0, 1] and rewards (K,).

    Args:
        pipeline: of the Stable Diffusion layout, with DDIM.
        reward: scores images for prompts.
        prompt: a text.
        scheduled: steps at which particles are scored and resampled, from 0.
        given: particles, steps and scale.
        seed: of all randomness.
    """
    k, device = given.particles, pipeline.device
    generator = torch.Generator(device).manual_seed(seed)
    embedded, _ = pipeline.encode_prompt(prompt, device, k, False)
    pipeline.scheduler.set_timesteps(given.steps, device=device)
    size = pipeline.unet.config.sample_size
    x = torch.randn(k, pipeline.unet.config.in_channels, size, size, generator=generator, device=device)
    last_reward = torch.zeros(k, device=device)

    def score(latents: Tensor) -> tuple[Tensor, Tensor]:
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        pictures = pipeline.image_processor.postprocess(decoded, output_type="pil")
        images = torch.stack([to_tensor(picture) for picture in pictures]).to(device)
        return images, reward(images, [prompt] * k)

    for i, t in enumerate(pipeline.scheduler.timesteps):
        noise = pipeline.unet(pipeline.scheduler.scale_model_input(x, t), t, embedded).sample
        step = pipeline.scheduler.step(noise, t, x, eta=1.0, generator=generator)
        x = step.prev_sample
        if i in scheduled or i == given.steps - 1:
            _, rewards = score(step.pred_original_sample)
            weights = torch.softmax(given.scale * (rewards - last_reward), dim=0)
            if float(1 / (weights**2).sum()) < 0.5 * k:
                ancestors = torch.multinomial(weights, k, replacement=True, generator=generator)
                x, rewards = x[ancestors], rewards[ancestors]
            last_reward = rewards
    images, _ = score(x)
    return images, last_reward


def arms(pipeline: Any, reward: Any, given: argparse.Namespace) -> dict[str, Callable[[list[str], int], Any]]:
    """What is timed, each on some prompts with a seed."""
    start, stop, every = SCHEDULE

    def ours(prompts: list[str], seed: int, **cheaper: Any) -> Any:
        return steer(
            pipeline, prompts, reward=reward, reward_scale=given.scale, num_particles=given.particles, seed=seed,
            reward_schedule=Schedule(start=start, stop=stop, every=every), scheduler="keep", previews=False,
            pipeline_kwargs={"num_inference_steps": given.steps, "guidance_scale": 1.0, "eta": 1.0}, **cheaper,
        )  # fmt: skip

    def loop(prompts: list[str], seed: int) -> list[Any]:
        scheduled = Schedule(start=start, stop=stop, every=every).resolve(given.steps)
        return [plain_loop(pipeline, reward, prompt, scheduled, given, seed + i) for i, prompt in enumerate(prompts)]

    return {
        "plain loop": loop,
        "fklit": ours,
        "fklit, preview decoder": lambda prompts, seed: ours(prompts, seed, preview_decoder=TINY),
        "fklit, preview decoder and early stop": lambda prompts, seed: ours(
            prompts, seed, preview_decoder=TINY, stop_scoring_above=math.log(0.9)
        ),
    }


def timed(pipeline: Any, reward: Any, prompts: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """Ratio of seconds to the plain loop's, with standard errors, over the rounds."""
    table = arms(pipeline, reward, given)
    clock = time.process_time if pipeline.device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in table}
    size = min(given.batch, len(prompts))
    for turn in track(range(given.rounds + 1), description="rounds"):  # the first one is for the caches
        chosen = np.random.default_rng(turn).choice(len(prompts), size, replace=False)
        for name in list(table)[:: 1 if turn % 2 else -1]:
            begun = clock()
            table[name]([prompts[i] for i in chosen], 1000 * turn)
            if turn:
                seconds[name].append(clock() - begun)
    found = {}
    for name in list(table)[1:]:
        mean, error = ratio(list(zip(seconds[name], seconds["plain loop"], strict=True)))
        found[name] = {"ratio": mean, "standard_error": error}
    return {"seconds_of_the_loop": sum(seconds["plain loop"]) / len(seconds["plain loop"]) / size, **found}


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="prompts of a round")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)

    from fklit.emoji.prompts import compositional_prompts
    from fklit.pipelines.source import PipelineSource
    from fklit.rewards import ImageReward

    pipeline = PipelineSource("fklit:emoji_scenes").load().to(given.device).pipeline
    reward = ImageReward("fklit:emoji_reward").load().to(given.device)
    prompts = [prompt.text for prompt in compositional_prompts(48)]
    report = {
        "of_plain_loop": timed(pipeline, reward, prompts, given),
        "settings": {name: str(value) for name, value in vars(given).items() if name != "output"},
        "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "device": given.device},
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
