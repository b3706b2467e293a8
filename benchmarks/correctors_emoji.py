"""Corrected guidance of the shipped text-to-image model; `python benchmarks/correctors.py --only emoji` runs it.

For each guidance scale, number of particles K and correction, a swarm is sampled for each prompt and seed. Its figures
are those of one draw by weight, in expectation over the draw. The same call with correction 0 gives K samples of the
heuristic: their mean is what one plain draw is worth, the one of highest reward is best of K, and both cost the same
denoiser calls. Diversity is the mean `1 - cosine` of CLIP embeddings between draws of one prompt with different seeds.
Intervals: 95 % bootstrap over prompts, of means over seeds; differences to one plain draw are paired by prompt.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fklit import correct
from fklit.data.emoji_prompts import ScenePrompt, test_prompts
from fklit.metrics.diversity import pairwise_distance
from fklit.report.charts import bootstrap_interval

Cell = dict[str, Any]


def load(pipeline: str, reward: str) -> tuple[Any, Any, Any]:
    """Pipeline, reward and judge."""
    from fklit.metrics.detector import Judge
    from fklit.models.source import PipelineSource
    from fklit.rewards.clip import CLIPScore

    return PipelineSource(pipeline).pipeline, CLIPScore(reward), Judge()


def sample(
    models: tuple[Any, Any, Any], prompts: Sequence[ScenePrompt], seed: int, *, scale: float, k: int, correction: float,
    steps: int,
) -> list[Cell]:  # fmt: skip
    """One swarm a prompt, scored."""
    pipeline, reward, judge = models
    texts = [prompt.text for prompt in prompts]
    result = correct(
        pipeline,
        texts,
        guidance_scale=scale,
        num_particles=k,
        correction=correction,
        ess_threshold=0.5,
        seed=seed,
        # Noise follows from the prompt, not from its place in a list.
        prompt_indices=[zlib.crc32(text.encode()) for text in texts],
        scheduler="keep",
        call={"num_inference_steps": steps, "eta": 1.0},
    )
    cells = []
    slots = [row[0] for row in result.sample_slots(1, seed=seed)]
    for b, prompt in enumerate(prompts):
        images = result.samples[b]
        with torch.no_grad():
            rewards = reward(images, [prompt.text] * k).double()
            features = reward.embed_images(images[slots[b]].unsqueeze(0))[0].double()
        verdicts = judge.judge(images, [prompt.metadata()] * k)
        correct_ones = torch.tensor([float(v.correct) for v in verdicts]).double()
        weights = result.log_weights[b].exp()
        best = int(rewards.argmax())
        cells.append(
            {
                "prompt": prompt.text,
                "seed": seed,
                "judge": float((weights * correct_ones).sum()),
                "reward": float((weights * rewards).sum()),
                "best_judge": float(correct_ones[best]),
                "best_reward": float(rewards[best]),
                "ess": float(result.ess[-1, b]),
                "spread": float(result.spread[:, b].mean()),
                "total_spread": float(result.spread[:, b].sum()),
                "resamplings": int(result.resampled[:, b].sum()),
                "unique_roots": int(result.unique_roots[b]),
                "features": features.tolist(),
                "seconds": result.budget.seconds / len(prompts),
            }
        )
    return cells


def run(
    folder: Path,
    console: Console,
    *,
    seeds: Sequence[int],
    prompts: int,
    steps: int,
    pipeline: str,
    reward: str,
    scales: Sequence[float] = (2.0, 4.0, 7.5),
    particles: Sequence[int] = (2, 4, 8),
    corrections: Sequence[float] = (1.0, 0.03, 0.0),
) -> list[dict[str, Any]]:
    """Compute the missing cells and return one row an arm."""
    models = load(pipeline, reward)
    chosen = test_prompts(prompts)
    path = folder / "emoji.cells.jsonl"
    known: dict[str, Cell] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            cell = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        known[cell.pop("key")] = cell
    arms = [(scale, k, correction) for scale in scales for k in particles for correction in corrections]

    def key(arm: tuple[float, int, float], prompt: ScenePrompt, seed: int) -> str:
        return json.dumps([arm, prompt.text, seed, steps])

    for seed in seeds:
        for arm in arms:
            todo = [prompt for prompt in chosen if key(arm, prompt, seed) not in known]
            size = max(1, 32 // arm[1])
            for first in range(0, len(todo), size):
                group = todo[first : first + size]
                cells = sample(models, group, seed, scale=arm[0], k=arm[1], correction=arm[2], steps=steps)
                with open(path, "a", encoding="utf-8") as file:
                    for prompt, cell in zip(group, cells, strict=True):
                        known[key(arm, prompt, seed)] = cell
                        file.write(json.dumps({"key": key(arm, prompt, seed), **cell}) + "\n")
            console.print(f"[dim]emoji guidance {arm[0]:g}, K = {arm[1]}, correction {arm[2]:g}, seed {seed}[/dim]")
    return [summarise(arm, arms, chosen, seeds, known, key) for arm in arms]


def summarise(
    arm: tuple[float, int, float], arms: Sequence[Any], prompts: Sequence[ScenePrompt], seeds: Sequence[int],
    known: dict[str, Cell], key: Any,
) -> dict[str, Any]:  # fmt: skip
    """Means, and paired differences to one plain draw of the same guidance."""
    plain = (arm[0], arm[1], 0.0)

    def table(which: Any, figure: str) -> np.ndarray:
        return np.array([np.mean([known[key(which, p, s)][figure] for s in seeds]) for p in prompts])

    row: dict[str, Any] = {"guidance": arm[0], "k": arm[1], "correction": arm[2]}
    for figure in ("judge", "reward"):
        ours = table(arm, figure)
        row[figure] = spread_of(ours)
        if arm[2] > 0 and plain in arms:
            row[f"{figure} - plain"] = spread_of(ours - table(plain, figure))
            row[f"{figure} - best of K"] = spread_of(ours - table(plain, f"best_{figure}"))
        if arm[2] == 0:
            row[f"best of K: {figure}"] = spread_of(table(arm, f"best_{figure}"))
    if len(seeds) > 1:
        features = [[known[key(arm, p, s)]["features"] for s in seeds] for p in prompts]
        row["diversity"] = spread_of(pairwise_distance(torch.tensor(features)).numpy())
    for figure in ("ess", "spread", "total_spread", "resamplings", "unique_roots", "seconds"):
        row[figure] = {"mean": float(table(arm, figure).mean())}
    return row


def spread_of(values: np.ndarray) -> dict[str, float]:
    """Mean with its 95 % interval over prompts."""
    low, high = bootstrap_interval(values)
    return {"mean": float(values.mean()), "low": low, "high": high}


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one line an arm."""
    figures = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("guidance", "k")]
    table = Table(title="emoji: mean [95 % interval over prompts]")
    for name in ("guidance", "K", *figures):
        table.add_column(name)
    for row in rows:
        cells = []
        for name in figures:
            found = row.get(name)
            if isinstance(found, dict):
                interval = f" [{found['low']:.3f}, {found['high']:.3f}]" if "low" in found else ""
                cells.append(f"{found['mean']:.3f}{interval}")
            else:
                cells.append("" if found is None else f"{found:g}")
        table.add_row(f"{row['guidance']:g}", str(row["k"]), *cells)
    console.print(table)
