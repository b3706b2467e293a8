"""Corrected guidance of the shipped text-to-image model; `python benchmarks/correctors.py --only emoji` runs it.

For each guidance scale one call with correction 0 gives samples of the heuristic: their mean is what one plain draw is
worth, and the expected best by reward of K of them is best of K. For each number of particles K and each way to weigh,
a group is sampled for each prompt and seed, at the denoiser calls of best of K. Its figures are those of one draw by
weight, in expectation over the draw. The ways:

exact     every step's weight, the target of the method
early     the weights of the steps in which the mutual information is below the prompts' entropy
tempered  a fifth of the early weights

Diversity is the mean `1 - cosine` of CLIP embeddings between draws of one prompt with different seeds. Intervals: 95 %
bootstrap over prompts, of means over seeds; differences to one plain draw are paired by prompt. Guidance was trained
with the prompts that the reward and the judge know; reward (CLIP) and judge (a detector) are different models.

The parts `mutual_information` and `summaries` say why: how far the mutual information of prompts and samples exceeds
the prompts' entropy, and how much of the weights' variance a linear drift control on summaries of the latents explains.
"""

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fklit import Schedule, correct
from fklit.emoji.prompts import ScenePrompt, test_prompts
from fklit.metrics.diversity import pairwise_distance
from fklit.report.charts import bootstrap_interval

Cell = dict[str, Any]
Models = tuple[Any, Any, Any]
EARLY = 0.48  # of the run: the steps in which the mutual information is below the prompts' entropy


def load(pipeline: str, reward: str) -> Models:
    """Pipeline, reward and judge."""
    from fklit.metrics.detector import Judge
    from fklit.pipelines.source import PipelineSource
    from fklit.rewards.clip import CLIPScore

    return PipelineSource(pipeline).pipeline, CLIPScore(reward), Judge()


WAYS: dict[str, dict[str, Any]] = {
    "exact": {"correction": 1.0},
    "early": {"correction": 1.0, "weight_schedule": Schedule(stop=EARLY)},
    "tempered": {"correction": 0.2, "weight_schedule": Schedule(stop=EARLY)},
    "plain": {"correction": 0.0},
}


@dataclass(frozen=True)
class Arm:
    """One way to sample: guidance scale, particles of a group, way to weigh."""

    guidance: float
    k: int
    way: str


def sample(models: Models, prompts: Sequence[ScenePrompt], seed: int, arm: Arm, steps: int) -> list[Cell]:
    """One group a prompt, scored."""
    pipeline, reward, judge = models
    texts = [prompt.text for prompt in prompts]
    result = correct(
        pipeline,
        texts,
        guidance_scale=arm.guidance,
        num_particles=arm.k,
        ess_threshold=0.5,
        seed=seed,
        # Noise follows from the prompt, not from its place in a list.
        prompt_indices=[zlib.crc32(text.encode()) for text in texts],
        scheduler="keep",
        pipeline_kwargs={"num_inference_steps": steps, "eta": 1.0},
        **WAYS[arm.way],
    )
    cells = []
    slots = result.sample_index(1, seed=seed)[:, 0].tolist()
    for b, prompt in enumerate(prompts):
        images = result.samples[b]
        with torch.no_grad():
            rewards = reward(images, [prompt.text] * arm.k).double()
            features = reward.embed_images(images).double()
        verdicts = judge.judge(images, [prompt.metadata()] * arm.k)
        right = torch.tensor([float(verdict.correct) for verdict in verdicts]).double()
        weights = result.log_weights[b].exp()
        cells.append(
            {
                "judge": float((weights * right).sum()),
                "reward": float((weights * rewards).sum()),
                "rewards": rewards.tolist(),
                "right": right.tolist(),
                "ess": float(result.ess[-1, b]),
                "log_weight_std": float(result.log_weight_std[:, b].mean()),
                "resamplings": int(result.resampled[:, b].sum()),
                "unique_roots": int(result.unique_roots[b]),
                "drawn": slots[b],
                "features": [[round(number, 5) for number in row] for row in features.tolist()],
                "calls": result.budget.denoiser_calls / len(prompts),
                "seconds": result.budget.seconds / len(prompts),
            }
        )
    return cells


def best_of(k: int, rewards: Sequence[float], values: Sequence[float]) -> float:
    """Expected value of the sample of highest reward among k of the n that are given, over all choices of k."""
    order = np.argsort(-np.asarray(rewards), kind="stable")
    chances = [math.comb(len(order) - 1 - place, k - 1) / math.comb(len(order), k) for place in range(len(order))]
    return float(np.dot(chances, np.asarray(values)[order]))


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
    plain = {scale: Arm(scale, max(particles), "plain") for scale in scales}
    arms = [Arm(scale, k, way) for scale in scales for k in particles for way in WAYS if way != "plain"]

    def key(arm: Arm, prompt: ScenePrompt, seed: int) -> str:
        return json.dumps([arm.guidance, arm.k, arm.way, prompt.text, seed, steps])

    for seed in seeds:
        for arm in (*plain.values(), *arms):
            todo = [prompt for prompt in chosen if key(arm, prompt, seed) not in known]
            size = max(1, 32 // arm.k)
            for first in range(0, len(todo), size):
                group = todo[first : first + size]
                cells = sample(models, group, seed, arm, steps)
                with open(path, "a", encoding="utf-8") as file:
                    for prompt, cell in zip(group, cells, strict=True):
                        known[key(arm, prompt, seed)] = cell
                        file.write(json.dumps({"key": key(arm, prompt, seed), **cell}) + "\n")
            console.print(f"[dim]emoji guidance {arm.guidance:g}, K = {arm.k}, {arm.way}, seed {seed}[/dim]")

    def of(arm: Arm, figure: Callable[[Cell], float]) -> np.ndarray:
        return np.array([np.mean([figure(known[key(arm, p, s)]) for s in seeds]) for p in chosen])

    def diversity(arm: Arm, slot: Callable[[Cell], int] = lambda cell: int(cell["drawn"])) -> dict[str, Any]:
        if len(seeds) < 2:
            return {}
        cells = [[known[key(arm, p, s)] for s in seeds] for p in chosen]
        features = [[cell["features"][slot(cell)] for cell in row] for row in cells]
        return {"diversity": mean_with_interval(pairwise_distance(torch.tensor(features)).numpy())}

    rows = []
    for scale in scales:
        base = plain[scale]
        ones = {figure: of(base, lambda cell, f=figure: cell[f]) for figure in ("judge", "reward")}
        rows.append({"guidance": scale, "k": 1, "way": "one plain draw", **_means(ones), **diversity(base)})
        for k in particles:
            best = {
                "judge": of(base, lambda cell, k=k: best_of(k, cell["rewards"], cell["right"])),
                "reward": of(base, lambda cell, k=k: best_of(k, cell["rewards"], cell["rewards"])),
            }
            first = diversity(base, lambda cell, k=k: int(np.argmax(cell["rewards"][:k])))
            rows.append(
                {"guidance": scale, "k": k, "way": "best of K", **_means(best), **_less(best, ones, "plain"), **first}
            )
            for way in WAYS:
                if way == "plain":
                    continue
                arm = Arm(scale, k, way)
                ours = {figure: of(arm, lambda cell, f=figure: cell[f]) for figure in ("judge", "reward")}
                less = {**_less(ours, ones, "plain"), **_less(ours, best, "best of K")}
                rows.append({"guidance": scale, "k": k, "way": way, **_means(ours), **less, **diversity(arm)})
                for figure in ("ess", "log_weight_std", "resamplings", "unique_roots", "calls", "seconds"):
                    rows[-1][figure] = {"mean": float(of(arm, lambda cell, f=figure: cell[f]).mean())}
    return rows


def _means(figures: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: mean_with_interval(values) for name, values in figures.items()}


def _less(figures: dict[str, np.ndarray], others: dict[str, np.ndarray], what: str) -> dict[str, Any]:
    return {f"{name} - {what}": mean_with_interval(values - others[name]) for name, values in figures.items()}


def mean_with_interval(values: np.ndarray) -> dict[str, float]:
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
                cells.append("" if found is None else str(found))
        table.add_row(f"{row['guidance']:g}", str(row["k"]), *cells)
    console.print(table)
