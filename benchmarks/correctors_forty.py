"""The forty Gaussians at a third of the temperature: what can decide, and the floor from 40 pairs of exact draws.

    python benchmarks/correctors_forty.py [--output docs/results/correctors_forty.json] [--seeds 5] [--pairs 40]

Mode masses are compared with those of a million exact draws, as weights carried to the end give them and as one
draw by these weights does; sliced W1 takes all 10,000 points against as many fresh exact draws. W1 by assignment of
2,000 points is there for the comparison with arXiv 2503.02819. The start of the ramp and the ESS threshold were chosen
on seeds 101 to 203. One thread, about 8 minutes.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from fklit.analytic import forty_gaussians, power
from fklit.correctors import Ramp, Target, Uncorrected, VarianceExploding, simulate
from fklit.feynman_kac.resampling import systematic
from fklit.metrics.distributions import mode_masses, sliced_wasserstein, wasserstein

PARTICLES, STEPS = 10_000, 1_000
LAW = forty_gaussians()
TRUTH = power(LAW, 3)


def draw(seed: int, count: int = PARTICLES) -> torch.Tensor:
    """Exact samples."""
    return TRUTH.sample((count,), torch.Generator().manual_seed(seed), dtype=torch.float64)


MASSES = mode_masses(draw(1, 10**6), LAW.means)


def mode_tv(x: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    """Total variation of the masses of the modes."""
    return 0.5 * float((mode_masses(x, LAW.means, weights) - MASSES).abs().sum())


def distances(x: torch.Tensor, seed: int) -> dict[str, float]:
    """Of equally weighted points, in the units of the data."""
    y = draw(10_000 + seed)
    return {
        "mode_tv": mode_tv(x),
        "sliced_w1": sliced_wasserstein(50 * x, 50 * y, seed=seed),
        "w1": wasserstein(50 * x, 50 * y, seed=seed)[0],
    }


def methods() -> dict[str, tuple[Target, dict[str, Any]]]:
    """Name, target and settings."""
    expert = LAW.on(VarianceExploding(sigma_min=0.01, sigma_max=10.0))

    def late(start: float, kind: str = "exact") -> Target:
        return Target.annealed(expert, Ramp.late(3.0, start=start), log_density=kind)  # type: ignore[arg-type]

    return {
        "late ramp from 0.4, ESS < 0.5": (late(0.4), {"ess_threshold": 0.5}),
        "late ramp from 0.4, ESS < 0.5, Ito log densities": (late(0.4, "ito"), {"ess_threshold": 0.5}),
        "late ramp from 0.6, every step": (late(0.6), {"ess_threshold": 1.0}),
        "target score, every step": (Target.annealed(expert, 3.0), {"ess_threshold": 1.0}),
        "target score, heuristic": (Target.annealed(expert, 3.0), {"increment": Uncorrected()}),
    }


def cell(target: Target, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Figures of one run."""
    start = time.process_time()
    run = simulate(target, num_particles=PARTICLES, num_steps=STEPS, seed=seed, dtype=torch.float64, **options)
    seconds = time.process_time() - start
    x = run.samples[0][systematic(run.log_weights, torch.Generator().manual_seed(seed))[0]]
    return {
        "mode_tv_weighted": mode_tv(run.samples[0], run.log_weights[0].exp()),
        **distances(x, seed),
        "min_ess": float(run.min_ess[0]) / PARTICLES,
        "unique_roots": float(run.unique_roots[0]) / PARTICLES,
        "resamplings": float(run.resampled.sum()),
        "cpu_seconds": seconds,
    }


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation and standard error of each figure, and the values."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        deviation = float(values.std()) if len(values) > 1 else 0.0
        found[name] = {
            "mean": float(values.mean()),
            "sd": deviation,
            "se": deviation / len(values) ** 0.5,
            "values": [round(value, 5) for value in values.tolist()],
        }
    return found


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/results/correctors_forty.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []

    def add(method: str, cells: list[dict[str, float]]) -> None:
        rows.append({"method": method, "runs": len(cells), "figures": summary(cells)})
        shown = {name: f"{item['mean']:.4f} ± {item['se']:.4f}" for name, item in rows[-1]["figures"].items()}
        print(method, shown, flush=True)
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        found = {"rows": rows, "seeds": list(range(given.seeds)), "hardware": "one CPU thread", "versions": versions}
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    add("exact draws", [distances(draw(20_000 + pair), pair) for pair in range(given.pairs)])
    for name, (target, options) in methods().items():
        add(name, [cell(target, options, seed) for seed in range(given.seeds)])


if __name__ == "__main__":
    main()
