"""Folders like those a steering run writes, with made-up pictures and real resampling, for tests of the report."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def _picture(value: float, noise: float, hue: int, side: int, rng: np.random.Generator) -> np.ndarray:
    image = Image.new("RGB", (side, side), "white")
    radius = side * (0.15 + 0.3 * value)
    box = [side / 2 - radius, side / 2 - radius, side / 2 + radius, side / 2 + radius]
    ImageDraw.Draw(image).ellipse(box, fill=f"hsl({hue},80%,50%)")
    pixels = np.asarray(image, dtype=np.float64) + noise * 255 * rng.standard_normal((side, side, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def write_run(
    path: Path,
    prompts: list[str],
    *,
    particles: int = 4,
    steps: tuple[int, ...] = (6, 11, 16, 21, 26),
    num_steps: int = 30,
    steered: bool = True,
    previews: bool = True,
    seed: int = 0,
    side: int = 64,
) -> Path:
    """A toy: each particle has a hue for life and a random walk for a reward; steering resamples on a low ESS."""
    path.mkdir(parents=True, exist_ok=True)
    settings = {
        "settings": {
            "pipeline": "toy/pipeline",
            "reward": {"class_path": "toy.Reward", "init_args": {"strength": 1}},
            "steering": {
                "potential": "difference" if steered else "terminal",
                "reward_scale": 6.0,
                "ess_threshold": 0.5,
            },
            "sampler": "DDIMScheduler(eta=1)",
        },
        "settings_hash": "0123456789abcdef",
        "versions": {"torch": "2.x"},
    }
    (path / "run.json").write_text(json.dumps(settings))
    for index, prompt in enumerate(prompts):
        rng = np.random.default_rng([seed, index])
        hues, values = rng.integers(0, 360, particles), rng.uniform(0.1, 0.5, particles)
        previous, logw = np.zeros(particles), np.zeros(particles)
        reward_path, ancestors, resampled, ess, shots = [], [], [], [], []
        roots = np.arange(particles)
        for i, _ in enumerate(steps):
            noise = 0.35 * (1 - i / len(steps))
            shots.append([_picture(v, noise, h, side // 2, rng) for v, h in zip(values, hues, strict=True)])
            reward_path.append(values.tolist())
            logw = logw + 6 * (values - previous) * steered * 3
            weights = np.exp(logw - logw.max())
            weights /= weights.sum()
            ess.append(float(1 / (weights**2).sum()))
            parents, again = np.arange(particles), bool(steered and ess[-1] < 0.6 * particles)
            if again:
                parents = np.searchsorted(weights.cumsum(), (np.arange(particles) + rng.uniform()) / particles).clip(
                    0, particles - 1
                )
                logw = np.zeros(particles)
            values, hues, roots = values[parents], hues[parents], roots[parents]
            ancestors.append(parents.tolist())
            resampled.append(again)
            previous = values.copy()
            values = (values + 0.09 * rng.standard_normal(particles) + 0.02).clip(0, 1)
        weights = np.exp(6 * values if not steered else logw)
        ess.append(float(weights.sum() ** 2 / (weights**2).sum()))
        folder = path / f"{index:05d}"
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        for k in range(particles):
            Image.fromarray(_picture(values[k], 0.0, hues[k], side, rng)).save(folder / "samples" / f"{k:04d}.png")
        if previews and steps:
            np.savez_compressed(folder / "previews.npz", previews=np.array(shots))
        (folder / "metadata.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
        record = {
            "prompt": prompt,
            "prompt_index": index,
            "seed": seed,
            "num_particles": particles,
            "reward": "toy.Reward",
            "potential": "difference" if steered else "terminal",
            "reward_scale": 6.0,
            "sampler": "DDIMScheduler(eta=1)",
            "num_steps": num_steps,
            "steps": list(steps),
            "scored_steps": list(steps),
            "rewards": values.tolist(),
            "log_weights": np.log(weights).tolist(),
            "log_z": 0.42,
            "ess": ess,
            "reward_path": reward_path,
            "ancestors": ancestors,
            "resampled": resampled,
            "unique_roots": len(set(roots.tolist())),
            "degenerate": False,
            "best": int(values.argmax()),
            "budget": {
                "denoiser_calls": num_steps * particles * 2,
                "decodes": particles * (1 + len(steps)),
                "reward_calls": particles * (1 + len(steps)),
                "seconds": 1.7,
                "peak_memory_bytes": 512 * 2**20,
            },
            "settings_hash": "0123456789abcdef",
        }
        (folder / "record.json").write_text(json.dumps(record))
    return path
