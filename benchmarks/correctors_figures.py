"""Draws the pictures of docs/correctors.md: the wrong and the right density side by side.

python benchmarks/correctors_figures.py [FOLDER]
"""

import json
import sys
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fklit.analytic import GaussianMixture, MixturePipeline, forty_gaussians, power
from fklit.correctors import (
    FittedControl,
    Ramp,
    Target,
    Uncorrected,
    VarianceExploding,
    VariancePreserving,
    prompt_divergence,
    simulate,
)
from fklit.feynman_kac.resampling import systematic

FIRST = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
SECOND = GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3])
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "correctors.json"
GRID = torch.linspace(-4, 4, 1601, dtype=torch.float64)


def densities(folder: Path) -> None:
    """Guidance, annealing and a product on the line."""
    path = VariancePreserving()
    first, second = FIRST.on(path), SECOND.on(path)
    targets: dict[str, Target] = {
        "guidance, $p_c^2 / p_u$": Target.guided(second, first, 2.0),
        "annealing, $p^{2.5}$": Target.annealed(first, 2.5),
        "product, $p\\,q$": Target.product([first, second]),
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 4.4), sharex=True, sharey="col")
    settings = {"num_particles": 4000, "num_groups": 4, "num_steps": 200, "dtype": torch.float64}
    for column, (name, target) in enumerate(targets.items()):
        exact = torch.softmax(target.log_gamma(GRID[None, :, None], 0.0)[0], dim=0) / (GRID[1] - GRID[0])
        runs = {
            "heuristic": simulate(target, increment=Uncorrected(), **settings),
            "corrected": simulate(target, control=FittedControl(), ess_threshold=0.5, **settings),
        }
        for row, (way, run) in enumerate(runs.items()):
            axis = axes[row, column]
            weights = torch.softmax(run.log_weights, dim=1).flatten()
            color = ("C1", "C0")[row]
            axis.hist(run.samples.flatten(), weights=weights, bins=120, range=(-4, 4), density=True, color=color)
            axis.plot(GRID, exact, color="k", lw=1)
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(way)
        axes[0, column].set_title(name, fontsize=10)
    figure.tight_layout()
    figure.savefig(folder / "correctors_densities.png", dpi=80)


def forty(folder: Path) -> None:
    """The forty Gaussians at a third of the temperature."""
    law = forty_gaussians()
    expert = law.on(VarianceExploding(sigma_min=0.01, sigma_max=10.0))
    settings = {"num_particles": 3000, "num_steps": 400, "dtype": torch.float64}
    clouds = {"exact": power(law, 3).sample((3000,), torch.Generator().manual_seed(0))}
    heuristic = simulate(Target.annealed(expert, 3.0), increment=Uncorrected(), **settings)
    clouds["heuristic: $3 \\nabla \\log q_t$"] = heuristic.samples[0]
    run = simulate(Target.annealed(expert, Ramp.late(3.0)), ess_threshold=1.0, **settings)
    chosen = systematic(run.log_weights, torch.Generator().manual_seed(0))[0]
    clouds["corrected, late ramp"] = run.samples[0][chosen]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharex=True, sharey=True)
    for axis, (name, cloud) in zip(axes, clouds.items(), strict=True):
        axis.hist2d(*(50 * cloud).T.numpy(), bins=90, range=[[-45, 45]] * 2, cmap="Blues", vmax=25)
        axis.plot(*(50 * law.means).T.numpy(), "x", color="C3", ms=3, mew=0.6)
        axis.set(title=name, xticks=[], yticks=[], aspect="equal")
    figure.tight_layout()
    figure.savefig(folder / "correctors_forty.png", dpi=80, bbox_inches="tight")


def mutual_information(folder: Path) -> None:
    """The divergence of a prompt's law, step by step: of exact denoisers, and of the shipped text-to-image model."""
    import diffusers

    pipeline = MixturePipeline({"second": SECOND}, FIRST, diffusers.DDIMScheduler(clip_sample=False))
    call = {"num_inference_steps": 100, "eta": 1.0}
    exact = prompt_divergence(pipeline, ["second"], num_samples=4000, scheduler="keep", pipeline_kwargs=call)
    logs = [law.log_density(GRID[:, None]) for law in (SECOND, FIRST)]
    divergence = float((logs[0].exp() * (logs[0] - logs[1])).sum() * (GRID[1] - GRID[0]))
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["mutual_information"]["rows"]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
    axes[0].plot(exact.stepwise_kl.sum(dim=1).cumsum(dim=0), color="C0", label="sum over steps")
    axes[0].axhline(divergence, color="k", lw=1, label="divergence, by quadrature")
    axes[0].set(title="two exact mixtures", xlabel="step", ylabel="nats")
    for number, row in enumerate(rows):
        label = f"sum over steps, {len(rows)} seeds" if number == 0 else None
        axes[1].plot(torch.tensor(row["by_step"]).cumsum(dim=0), color="C1", label=label)
    axes[1].axhline(rows[0]["entropy"], color="k", lw=1, label="entropy of the prompts, the upper bound")
    axes[1].axvspan(-0.5, rows[0]["steps_within"] - 0.5, color="0.9", label="early steps")
    axes[1].set(title="the shipped text-to-image model", xlabel="step", xlim=(-0.5, None))
    for axis in axes:
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "correctors_mutual_information.png", dpi=80)


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures")
    where.mkdir(parents=True, exist_ok=True)
    densities(where)
    forty(where)
    mutual_information(where)
