"""The part `steps` of benchmarks/correctors.py: what the length of the steps costs, for three ways to take them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from correctors_simulation import Figures, Part

from fklit.correctors import EDM, EulerMaruyama, Heun, SplitNoise, Target, simulate
from fklit.molecules import HarmonicCluster

SPRINGS = [[0.0, 40.0, 30.0, 0.0], [40.0, 0.0, 0.0, 0.0], [30.0, 0.0, 0.0, 60.0], [0.0, 0.0, 60.0, 0.0]]
HOT, EVALUATIONS = 2.0, (60, 125, 250)
WAYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "Euler-Maruyama": lambda count: {"num_steps": count, "proposal": EulerMaruyama()},
    "split noise": lambda count: {"num_steps": count, "proposal": SplitNoise()},
    "Heun, churn 0.2": lambda count: {"num_steps": count // 2, "proposal": Heun(churn=0.2)},  # evaluates twice
}


def steps() -> Part:
    """A stiff harmonic cluster of four particles in the plane, annealed from temperature 2 by exact scores."""
    for temperature in (2.0, 1.5, 1.0):
        for count in EVALUATIONS:
            for way, settings in WAYS.items():
                labels = {"temperature": f"{temperature:g}", "evaluations": str(count), "way": way}
                yield labels, partial(_energy, temperature, settings(count))


def _energy(temperature: float, settings: dict[str, Any], seed: int) -> Figures:
    """Relative error of the mean energy, whose exact value is half of the temperature for each of six coordinates."""
    cluster = HarmonicCluster(SPRINGS, 2)
    target = Target.annealed(cluster.law(HOT).on(EDM(0.005, 6.0, 3.0)), HOT / temperature)
    found = simulate(target, num_particles=1000, dtype=torch.float64, seed=seed, **settings)
    weights = torch.softmax(found.log_weights[0], dim=0)
    energy = float((weights * cluster.energy(found.samples[0])).sum())
    return {"energy_error": energy / (3 * temperature) - 1, "min_ess": float(found.min_ess[0]) / 1000}
