"""Why weights of learned guidance vary: `python benchmarks/correctors.py --only mutual_information summaries`.

mutual_information  what each step of a plain conditional run adds to the divergence of conditional and unconditional
             law, in nats, for prompts drawn as in training: their mean is the mutual information of prompts and
             samples, which the entropy of that draw bounds (`fklit.correctors.prompt_divergence`).
summaries    share of the variance of one step's log weight, between particles of one prompt, that a linear drift
             control explains if its coefficients are shared by all coordinates, by the coordinates of a channel, or by
             low spatial frequencies. Fitted by ridge regression on other prompts, or on other particles of the same
             prompt; the best of five penalties is reported, which flatters the control.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fklit.correctors import prompt_divergence
from fklit.correctors.guidance.weight import guidance_weight
from fklit.emoji.prompts import test_prompts
from fklit.emoji.scenes import sample_prompt
from fklit.pipelines.denoised import denoised
from fklit.pipelines.guidance_predictions import guidance_predictions
from fklit.pipelines.interception import Interception
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.source import PipelineSource
from fklit.pipelines.step_call import StepCall

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
KINDS = ("all coordinates", "channels", "frequencies 2 x 2", "frequencies 4 x 4")


def prompt_entropy(draws: int = 50_000) -> float:
    """Upper bound of the entropy of training's captions, in nats: as if those of a kind were equally likely."""
    rng = np.random.default_rng(0)
    prompts = [sample_prompt(rng) for _ in range(draws)]
    shares = Counter(prompt.tag for prompt in prompts)
    texts = {tag: len({prompt.text for prompt in prompts if prompt.tag == tag}) for tag in shares}
    return sum(n / draws * (math.log(texts[tag]) - math.log(n / draws)) for tag, n in shares.items())


def mutual_information(pipeline: str, *, seeds: Sequence[int], prompts: int, steps: int) -> list[dict[str, Any]]:
    """One row a seed."""
    loaded = PipelineSource(pipeline).pipeline
    entropy = prompt_entropy()
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)  # as training draws them: the bound is on the mean over that draw
        texts = [sample_prompt(rng).text for _ in range(prompts)]
        settings = {"scheduler": "keep", "pipeline_kwargs": {"num_inference_steps": steps, "eta": 1.0}, "max_batch": 32}
        found = prompt_divergence(loaded, texts, num_samples=4, seed=seed, **settings)
        rows.append(
            {
                "seed": seed,
                "entropy": entropy,
                "nats": found.mean,
                "error": found.error,
                "steps_within": found.steps_within(entropy),
                "last_step": float(found.stepwise_kl[-1].mean()),
                "by_step": [round(float(n), 3) for n in found.stepwise_kl.mean(dim=1)],
            }
        )
    return rows


def summaries(pipeline: str, *, prompts: int, steps: int, guidance: float = 2.0, k: int = 32) -> list[dict[str, Any]]:
    """One row a kind of control."""
    loaded = PipelineSource(pipeline).pipeline
    runs = []
    for number, prompt in enumerate(test_prompts(prompts)):
        recorder = _Recorder(guidance)
        generators = [torch.Generator().manual_seed(number)] * k
        with Interception(loaded, recorder, generators=generators, eta=1.0), torch.no_grad():
            loaded(
                prompt.text,
                guidance_scale=guidance,
                num_images_per_prompt=k,
                generator=generators,
                num_inference_steps=steps,
                output_type="latent",
            )
        runs.append(recorder.steps)
    rows = []
    for kind in KINDS:
        row: dict[str, Any] = {"kind": kind}
        for name, which in (("first half", range(steps // 2)), ("second half", range(steps // 2, steps))):
            for where, explained in (("other prompts", _across), ("other particles", _within)):
                total = left = 0.0
                for step in which:
                    features = [run[step][0][kind] for run in runs]
                    weights = [run[step][1] for run in runs]
                    found = [explained(features, weights, penalty) for penalty in PENALTIES]
                    best = min(range(len(found)), key=lambda number, found=found: found[number])
                    total += sum(float(w.square().sum()) for w in weights)
                    left += found[best]
                row[f"{name}, {where}"] = 1 - left / total
        rows.append(row)
    return rows


class _Recorder:
    """Remembers the features and the log weights of every step."""

    def __init__(self, guidance: float) -> None:
        self.guidance = guidance
        self.steps: list[tuple[dict[str, Tensor], Tensor]] = []

    def begin(self, num_steps: int, noisy: Any) -> None:
        """Nothing to prepare."""

    def step(self, call: StepCall) -> None:
        """Record one step; changes nothing."""
        found = guidance_predictions(call, self.guidance)
        assert found is not None
        pair = (found.unconditional, found.conditional)
        uncond, cond = (denoised(call.scheduler, output, call.timestep, call.sample).double() for output in pair)
        levels = step_levels(call.scheduler, call.timestep)
        weights = guidance_weight([uncond, cond], (1 - self.guidance, self.guidance), levels)
        x = call.sample.double() / levels.scale
        score = (uncond + self.guidance * (cond - uncond) - x) / (levels.sigma / levels.scale) ** 2
        self.steps.append(({kind: _centered(_features(x, score, kind)) for kind in KINDS}, _centered(weights)))


def _features(x: Tensor, score: Tensor, kind: str) -> Tensor:
    """What slopes and offsets of a linear drift add to the weight, up to constants: sums of `x S` and of `S`."""
    slope = x * score
    if kind == "all coordinates":
        return torch.stack([slope.flatten(1).sum(dim=1), score.flatten(1).sum(dim=1)], dim=1)
    if kind == "channels":
        return torch.cat([slope.sum(dim=(2, 3)), score.sum(dim=(2, 3))], dim=1)
    count = int(kind.split()[1])
    waves = [_waves(size, count) for size in x.shape[2:]]
    return torch.cat([torch.einsum("nchw,ha,wb->ncab", part, *waves).flatten(1) for part in (slope, score)], dim=1)


def _waves(size: int, count: int) -> Tensor:
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return torch.stack([torch.cos(math.pi * number * places) for number in range(count)], dim=1) / size**0.5


def _centered(values: Tensor) -> Tensor:
    return values - values.mean(dim=0)


def _fit(features: Tensor, weights: Tensor, penalty: float) -> Tensor:
    size = features.square().mean(dim=0).sqrt() + 1e-12
    scaled = features / size
    gram = scaled.T @ scaled / len(scaled) + penalty * torch.eye(scaled.shape[1], dtype=scaled.dtype)
    return torch.linalg.solve(gram, scaled.T @ weights / len(scaled)) / size


def _across(features: list[Tensor], weights: list[Tensor], penalty: float) -> float:
    """Squares that are left on each prompt by a fit to the others."""
    left = 0.0
    for held in range(len(features)):
        others = [number for number in range(len(features)) if number != held]
        theta = _fit(torch.cat([features[n] for n in others]), torch.cat([weights[n] for n in others]), penalty)
        left += float((weights[held] - features[held] @ theta).square().sum())
    return left


def _within(features: list[Tensor], weights: list[Tensor], penalty: float) -> float:
    """Squares that are left on each quarter of a prompt's particles by a fit to the others."""
    left = 0.0
    for f, w in zip(features, weights, strict=True):
        quarter = torch.arange(len(w)) % 4
        for held in range(4):
            theta = _fit(f[quarter != held], w[quarter != held], penalty)
            left += float((w[quarter == held] - f[quarter == held] @ theta).square().sum())
    return left


def show(rows: Sequence[dict[str, Any]], title: str, console: Console, *, hidden: Collection[str] = ()) -> None:
    """Print the rows."""
    table = Table(title=title)
    names = [name for name in rows[0] if name not in hidden]
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*[f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in names])
    console.print(table)
