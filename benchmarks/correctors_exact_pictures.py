"""Guidance with exact denoisers of real pictures: `python benchmarks/correctors.py --only pictures`.

The unconditional law is 1,500 training scenes and 300 hearts, 60 of each of five colors, averaged to 16 x 16 pixels
(768 numbers) and blurred by Gaussians of standard deviation 0.05; the law of the prompt is that of the hearts, which
have a twentieth of the unconditional mass. Both denoisers are exact. The hearts keep their proportions under guidance
of any scale: `p(x | heart)^w p(x)^(1 - w)` is the law of the hearts itself, and what a sampler makes of the colors is
its own doing. The divergence of the two laws is log 20, known exactly.

Figures: `distance`, the root of an unbiased estimate of the squared distance between the expected shares of the five
colors in one draw by weight and a fifth each (it is not inflated by the number of groups), with the 95 % bootstrap
interval over groups of the squared distance's root; and what is left of the groups.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fklit.analytic import GaussianMixture, MixturePipeline
from fklit.correctors import correct, prompt_divergence
from fklit.emoji.art import load_art
from fklit.emoji.prompts import ScenePrompt, Wanted
from fklit.emoji.scene_data import to_tensor
from fklit.emoji.scenes import compose, place, sample_scene, scene_rng

COLORS = ("red", "green", "blue", "yellow", "purple")
EACH, OTHERS, SHARE, BLUR = 60, 1500, 0.05, 0.05
ROWS = 3200  # at most in one call


def laws() -> tuple[GaussianMixture, GaussianMixture]:
    """The laws of the hearts, in the order of the colors, and of all pictures."""
    art = load_art()

    def shrink(scene: Any) -> Tensor:
        picture = torch.nn.functional.avg_pool2d(to_tensor(compose(scene, art)), 4)
        return (2 * picture - 1).flatten().double()

    hearts = [
        shrink(place(ScenePrompt("colors", (Wanted("heart", color),)), scene_rng(7, EACH * number + index)))
        for number, color in enumerate(COLORS)
        for index in range(EACH)
    ]
    others = [shrink(sample_scene(3, index)) for index in range(OTHERS)]
    masses = [SHARE / len(hearts)] * len(hearts) + [(1 - SHARE) / OTHERS] * OTHERS
    return GaussianMixture(torch.stack(hearts), BLUR**2), GaussianMixture(
        torch.stack([*hearts, *others]), BLUR**2, masses
    )


def color_shares(samples: Tensor, weights: Tensor, hearts: Tensor) -> Tensor:
    """Expected share of each color in one draw by weight from each group, (B, 5)."""
    groups, particles = weights.shape
    nearest = torch.cdist(samples.reshape(groups * particles, -1).double(), hearts).argmin(dim=1)
    colors = torch.nn.functional.one_hot(nearest // EACH, len(COLORS)).double()
    return (weights.unsqueeze(2) * colors.reshape(groups, particles, -1)).sum(dim=1)


def squared_distance(shares: Tensor) -> float:
    """Unbiased estimate of the squared distance of the mean shares from equal ones, over independent groups."""
    noise = shares.var(dim=0) / len(shares)
    return float(((shares.mean(dim=0) - 1 / shares.shape[1]).square() - noise).sum())


def run(
    *, seeds: Sequence[int], steps: int, groups: int = 900, scales: Sequence[float] = (2.0, 4.0, 7.5),
    particles: Sequence[int] = (1, 4, 16),
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a guidance scale and number of particles; the first row is about the divergence."""
    import diffusers

    hearts, everything = laws()
    call = {"num_inference_steps": steps, "eta": 1.0}

    def pipeline() -> MixturePipeline:
        return MixturePipeline({"a heart": hearts}, everything, diffusers.DDIMScheduler(clip_sample=False))

    settings: dict[str, Any] = {"scheduler": "keep", "pipeline_kwargs": call}
    divergences = [
        prompt_divergence(pipeline(), ["a heart"], num_samples=256, seed=seed, **settings).mean for seed in seeds
    ]
    rows: list[dict[str, Any]] = [
        {"guidance": 1.0, "k": 1, "nats": sum(divergences) / len(divergences), "exact_nats": -math.log(SHARE)}
    ]
    for scale in scales:
        for k in particles:
            shares, ess, roots = [], [], []
            for first in range(0, groups, ROWS // 16):
                indices = list(range(first, min(first + ROWS // 16, groups)))
                found = correct(
                    pipeline(),
                    ["a heart"] * len(indices),
                    guidance_scale=scale,
                    num_particles=k,
                    ess_threshold=0.5,
                    prompt_indices=indices,
                    **settings,
                )
                shares.append(color_shares(found.samples, found.log_weights.exp(), hearts.means))
                ess += found.ess.amin(dim=0).tolist()
                roots += found.unique_roots.tolist()
            joined = torch.cat(shares)
            generator = torch.Generator().manual_seed(0)
            draws = [torch.randint(len(joined), (len(joined),), generator=generator) for _ in range(500)]
            again = sorted(squared_distance(joined[draw]) for draw in draws)
            low, high = (math.sqrt(max(again[place], 0.0)) for place in (12, 487))
            rows.append(
                {
                    "guidance": scale,
                    "k": k,
                    "distance": math.sqrt(max(squared_distance(joined), 0.0)),
                    "low": low,
                    "high": high,
                    "shares": [round(float(share), 3) for share in joined.mean(dim=0)],
                    "least_ess": sum(ess) / len(ess),
                    "unique_roots": sum(roots) / len(roots),
                }
            )
    return rows


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the divergence and the rows."""
    console.print(f"divergence: {rows[0]['nats']:.2f} nats, exactly {rows[0]['exact_nats']:.2f}")
    table = Table(title="colors of guided hearts: distance from their true shares")
    for name in ("w", "K", "distance", "shares of the colors", "least ESS", "roots"):
        table.add_column(name)
    for row in rows[1:]:
        table.add_row(
            f"{row['guidance']:g}",
            str(row["k"]),
            f"{row['distance']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            " ".join(f"{share:.3f}" for share in row["shares"]),
            f"{row['least_ess']:.2f}",
            f"{row['unique_roots']:.2f}",
        )
    console.print(table)
