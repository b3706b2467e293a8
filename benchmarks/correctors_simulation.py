"""The parts of benchmarks/correctors.py on analytic laws: `mixtures`, `variance`, `gmm40` and `throughput`."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fklit.analytic import GaussianMixture, forty_gaussians, power
from fklit.correctors import (
    EulerMaruyama,
    FittedControl,
    GaussianControl,
    KernelWeight,
    LinearFlow,
    NoisePath,
    Ramp,
    ReverseKernel,
    Target,
    Uncorrected,
    VarianceExploding,
    VariancePreserving,
    simulate,
)
from fklit.feynman_kac.resampling import systematic
from fklit.metrics.distributions import (
    energy_wasserstein,
    mmd,
    mode_masses,
    total_variation,
    w1_to_density,
    wasserstein,
)

Figures = dict[str, float]
Part = Iterator[tuple[dict[str, Any], Callable[[int], Figures]]]

FIRST = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
SECOND = GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3])
THIRD = GaussianMixture([[0.4]], 1.0)
GRID = torch.linspace(-8, 8, 16001, dtype=torch.float64)


def targets(path: NoisePath) -> dict[str, Target]:
    """The 1-D targets."""
    first, second, third = (law.on(path) for law in (FIRST, SECOND, THIRD))
    return {
        "annealing 2.5": Target.annealed(first, 2.5),
        "annealing 0.5": Target.annealed(first, 0.5),
        "guidance 2": Target.guided(second, first, 2.0),
        "geometric average": Target.geometric_average([first, second]),
        "product": Target.product([first, second]),
        "product squared": Target.annealed(Target.product([first, second]), 2.0),
        "exponents 1.2, 0.8, -0.5": Target.product([first, second, third], [1.2, 0.8, -0.5]),
    }


def density(target: Target) -> tuple[torch.Tensor, float]:
    """Masses on the grid and log Z of a target's law of data, by quadrature."""
    log_gamma = target.log_gamma(GRID[None, :, None], 0.0)[0]
    spacing = float(GRID[1] - GRID[0])
    return torch.softmax(log_gamma, dim=0), float(torch.logsumexp(log_gamma, dim=0)) + math.log(spacing)


def one_dimensional(target: Target, seed: int, **options: Any) -> Figures:
    """W1, errors of the variance and of log Z, and the final ESS of a run of 4,000 particles and 400 steps."""
    mass, log_z = density(target)
    settings = {"num_particles": 4000, "num_steps": 400, "dtype": torch.float64, **options}
    start = time.process_time()
    run = simulate(target, seed=seed, **settings)
    seconds = time.process_time() - start
    x, weights = run.samples[0, :, 0], torch.softmax(run.log_weights[0], dim=0)
    mean = float((weights * x).sum())
    truth = float((mass * (GRID - (mass * GRID).sum()).square()).sum())
    return {
        "w1": w1_to_density(x, weights, GRID, mass),
        "variance_error": float((weights * (x - mean).square()).sum()) - truth,
        "log_z_error": float(run.log_z[0]) - log_z,
        "ess": float(run.ess[-1, 0]) / settings["num_particles"],
        "resamplings": float(run.resampled.sum()),
        "cpu_seconds": seconds,
    }


def mixtures() -> Part:
    """W1 of the heuristic, of plain correctors and with control; few steps; other paths."""
    ways: dict[str, dict[str, Any]] = {
        "heuristic": {"increment": Uncorrected()},
        "corrected": {"ess_threshold": 1.0},
        "corrected, fitted control": {"control": FittedControl(), "ess_threshold": 0.5},
    }
    for name, target in targets(VariancePreserving()).items():
        for way, options in ways.items():
            yield {"target": name, "method": way}, lambda seed, t=target, o=options: one_dimensional(t, seed, **o)
    flow = targets(LinearFlow(stop=0.002))["guidance 2"]
    for way in ("heuristic", "corrected"):
        yield (
            {"target": "guidance 2, flow path", "method": way},
            lambda seed, o=ways[way]: one_dimensional(flow, seed, num_steps=300, **o),
        )
    guided = targets(VariancePreserving())["guidance 2"]
    for steps in (15, 30, 60):
        few: dict[str, dict[str, Any]] = {
            "heuristic": {"increment": Uncorrected()},
            "corrected, rate": {"ess_threshold": 0.5},
            "corrected, kernel weight": {
                "ess_threshold": 0.5,
                "proposal": ReverseKernel(),
                "increment": KernelWeight(),
            },
        }
        for way, options in few.items():
            yield (
                {"target": f"guidance 2, {steps} steps", "method": way},
                lambda seed, n=steps, o=options: one_dimensional(guided, seed, num_steps=n, **o),
            )


def variance() -> Part:
    """Log Z over seeds, and the ESS that is left when nothing is resampled."""
    ways: dict[str, dict[str, Any]] = {
        "plain, no resampling": {"ess_threshold": 0.0},
        "Gaussian control, no resampling": {"ess_threshold": 0.0, "control": GaussianControl()},
        "fitted control, no resampling": {"ess_threshold": 0.0, "control": FittedControl()},
        "plain, ESS < 0.9": {"ess_threshold": 0.9},
        "fitted control, ESS < 0.5": {"ess_threshold": 0.5, "control": FittedControl()},
    }
    known = targets(VariancePreserving())
    for name in ("annealing 2.5", "product", "guidance 2"):
        for way, options in ways.items():
            yield (
                {"target": name, "method": way},
                lambda seed, t=known[name], o=options: one_dimensional(t, seed, num_particles=2000, **o),
            )
    # Two modes along the first of 39 axes; Gaussian, and so favorable, in the others.
    means = torch.zeros(2, 39)
    means[:, 0] = torch.tensor([-1.5, 1.2])
    variances = torch.ones(2, 39)
    variances[:, 0] = torch.tensor([0.15, 0.30])
    wide = Target.annealed(GaussianMixture(means, variances, [0.35, 0.65]).on(VariancePreserving()), 2.0)
    for way, options in ways.items():
        if "no resampling" in way:
            yield (
                {"target": "annealing 2, 39 axes", "method": way},
                lambda seed, o=options: log_weights(wide, seed, **o),
            )


def log_weights(target: Target, seed: int, **options: Any) -> Figures:
    """Final ESS / N and standard deviation of the log weights where no density on a grid exists."""
    run = simulate(target, num_particles=2000, num_steps=250, seed=seed, dtype=torch.float64, **options)
    return {"ess": float(run.ess[-1, 0]) / 2000, "log_weight_std": float(run.log_weights[0].std())}


def gmm40(particles: int = 10_000, steps: int = 1_000) -> Part:
    """Annealing the forty Gaussians to beta = 3."""
    law = forty_gaussians()
    expert = law.on(VarianceExploding(sigma_min=0.01, sigma_max=10.0))
    annealed = Target.annealed(expert, 3.0)
    late, late_ito = (Target.annealed(expert, Ramp.late(3.0, start=0.6), log_density=kind) for kind in ("exact", "ito"))
    always: dict[str, Any] = {"ess_threshold": 1.0}
    ways: dict[str, tuple[Target, dict[str, Any]]] = {
        "late ramp, FKC": (late, always),
        "target score": (annealed, {"increment": Uncorrected()}),
        "tempered noise": (annealed, {"increment": Uncorrected(), "proposal": EulerMaruyama("tempered_noise")}),
        "target score, FKC": (annealed, always),
        "late ramp, FKC, Ito log densities": (late_ito, always),
        "fitted control, ESS < 0.5": (annealed, {"ess_threshold": 0.5, "control": FittedControl()}),
        "tempered noise, FKC": (annealed, {**always, "proposal": EulerMaruyama("tempered_noise")}),
    }
    truth = power(law, 3)
    yield {"method": "truth against truth"}, lambda seed: forty_figures(truth, law, draw(truth, seed, particles), seed)
    for way, (target, options) in ways.items():

        def cell(seed: int, target: Target = target, options: dict[str, Any] = options) -> Figures:
            start = time.process_time()
            run = simulate(target, num_particles=particles, num_steps=steps, seed=seed, dtype=torch.float64, **options)
            seconds = time.process_time() - start
            generator = torch.Generator().manual_seed(seed)
            x = run.samples[0][systematic(run.log_weights, generator)[0]]
            return {
                **forty_figures(truth, law, x, seed),
                "resamplings": float(run.resampled.sum()),
                "cpu_seconds": seconds,
            }

        yield {"method": way}, cell


def draw(law: GaussianMixture, seed: int, count: int) -> torch.Tensor:
    """Exact samples of a law."""
    return law.sample((count,), torch.Generator().manual_seed(seed), dtype=torch.float64)


def forty_figures(truth: GaussianMixture, law: GaussianMixture, x: torch.Tensor, seed: int) -> Figures:
    """Every distance between samples and fresh draws of the truth, in the units of the data."""
    y = draw(truth, 10_000 + seed, len(x))
    first, second = wasserstein(50 * x, 50 * y, seed=seed)
    energy_1, energy_2 = energy_wasserstein(x, y, lambda z: -truth.log_density(z))
    return {
        "w1": first,
        "w2": second,
        "tv": total_variation(50 * x, 50 * y, low=-50.0, high=50.0),
        "mmd": mmd(50 * x, 50 * y, bandwidths=(1.0, 4.0, 16.0), seed=seed),
        "energy_w1": energy_1,
        "energy_w2": energy_2,
        "mode_tv": 0.5 * float((mode_masses(x, law.means) - mode_masses(draw(truth, 1, 10**6), law.means)).abs().sum()),
    }


def throughput() -> Part:
    """The figure of the issue: N = 4000, 400 steps, two experts."""
    target = targets(VariancePreserving())["guidance 2"]
    for way, options in {"plain": {}, "fitted control": {"control": FittedControl()}}.items():

        def cell(seed: int, options: dict[str, Any] = options) -> Figures:
            start, cpu = time.perf_counter(), time.process_time()
            simulate(target, num_particles=4000, num_steps=400, seed=seed, **options)
            return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}

        yield {"method": way}, cell
