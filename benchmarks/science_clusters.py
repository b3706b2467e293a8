"""The cells of benchmarks/science.py on clusters."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from science_ladder import lower_network

from fklit.analytic import GaussianMixture, power
from fklit.cli import main as fklit_command
from fklit.correctors import (
    EDM,
    EulerMaruyama,
    FittedControl,
    Ramp,
    SplitNoise,
    Target,
    TrainedExpert,
    Uncorrected,
    simulate,
)
from fklit.feynman_kac import group_generators
from fklit.metrics.distributions import mode_masses, wasserstein_line
from fklit.molecules import (
    ClusterReference,
    HarmonicCluster,
    LangevinPolish,
    LennardJones,
    MeanFreeSpace,
    cluster_distances,
    parallel_tempering,
    quench,
    radial_distribution,
)

ROOT = Path(__file__).parent.parent
PATH = EDM(0.02, 6.0, 3.0)
COLDER_END = EDM(0.005, 6.0, 3.0)  # noise of 0.02 heats 13 particles at T = 1.5 by 0.3
HOT = 2.0
SPRINGS = [[0.0, 1.0, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 2.0], [0.0, 0.0, 2.0, 0.0]]
Distances = Callable[[torch.Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """A system, what is done on it, and a seed."""

    system: str
    arm: str
    seed: int
    compute: Callable[[], dict[str, Any]]


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """All cells: every arm has its first seed before any has its second; each network samples more than once."""
    for seed in range(given.networks * given.samplings):
        yield from exact_cells(given, seed)
        yield from learned_cells(given, seed)


def sampled(
    expert: Any, beta: Any, distances: Distances, given: argparse.Namespace, seed: int, **settings: Any
) -> dict[str, Any]:
    """Simulate one group, draw from it by weight, and measure."""
    polish = settings.pop("polish", None)
    settings = {"num_steps": given.steps, "seed": seed, **settings}
    begun = time.perf_counter()
    result = simulate(Target.annealed(expert, beta), num_particles=given.particles, **settings)
    x = result.samples if polish is None else polish(result.samples, group_generators(seed, 1, stream="polish"))
    seconds = time.perf_counter() - begun
    chosen = result.sample_index(given.particles, systematic=True)[0]
    share = float(result.min_ess[0]) / given.particles
    return {**distances(x[0][chosen]), "min_ess": share, "seconds": seconds}


def exact_cells(given: argparse.Namespace, seed: int) -> Iterator[Cell]:
    """Systems with exact scores and exact answers: what is left of the error is the method's."""
    harmonic = HarmonicCluster(SPRINGS, 2)
    mixture = particle_mixture()
    space = MeanFreeSpace(4, 2)

    def by_density(truth: GaussianMixture, x: torch.Tensor) -> dict[str, Any]:
        y = truth.sample((20_000,), torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)
        energies = [-mixture.log_density(points.double()) for points in (x, y)]
        pairs = [space.pair_distances(points.double()).flatten() for points in (x, y)]
        found = dict(zip(("energy_w1", "energy_w2"), wasserstein_line(*energies), strict=True))
        masses = [mode_masses(points, mixture.means) for points in (x, y)]
        found["mode_tv"] = 0.5 * float((masses[0] - masses[1]).abs().sum())
        return found | {"distance_w2": wasserstein_line(*pairs)[1], "mean_energy": float(energies[0].mean())}

    def by_energy(truth: GaussianMixture, x: torch.Tensor) -> dict[str, Any]:
        y = truth.sample((20_000,), torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)
        return cluster_distances(harmonic, x, y)

    systems: list[tuple[str, Any, float, GaussianMixture, Any]] = []
    for temperature in (1.5, 1.0):
        name, truth = f"harmonic T={temperature:g}", harmonic.law(temperature)
        systems.append((name, harmonic.law(HOT), HOT / temperature, truth, by_energy))
    for beta in (2, 3):
        systems.append((f"mixture beta={beta}", mixture, float(beta), power(mixture, beta), by_density))
    for name, law, beta, truth, measure in systems:
        distances, expert = partial(measure, truth), law.on(PATH)
        run = partial(sampled, expert, beta, distances, given, seed, dtype=torch.float64)
        control = {"control": FittedControl(), "ess_threshold": 0.5}
        yield Cell(name, "heuristic", seed, partial(run, increment=Uncorrected()))
        yield Cell(name, "corrected", seed, run)
        yield Cell(name, "corrected, control", seed, partial(run, **control))
        late = partial(sampled, expert, Ramp.late(beta), distances, given, seed, dtype=torch.float64)
        yield Cell(name, "corrected, late ramp", seed, late)
        draws = partial(truth.sample, (given.particles,), dtype=torch.float64)
        floor = lambda draws=draws, distances=distances: distances(draws(torch.Generator().manual_seed(seed)))  # noqa: E731
        yield Cell(name, "floor", seed, floor)


def learned_cells(given: argparse.Namespace, seed: int) -> Iterator[Cell]:
    """Lennard-Jones clusters, the seeds by one network after the other."""
    system = LennardJones(5) if given.quick else LennardJones()
    temperatures = (1.5,) if given.quick else (1.5, 1.0)
    reference = reference_of(given, system)
    name = f"lj{system.num_particles}"
    network = seed % given.networks
    expert = TrainedExpert(str(given.output / f"{name}-network-{network}"), COLDER_END, max_batch=64)

    def run(beta: float, temperature: float, **settings: Any) -> dict[str, Any]:
        train(given, network)
        truth = reference.at(temperature)
        settings = {"proposal": SplitNoise(), **settings}
        return sampled(expert, beta, lambda x: compared(system, x, truth), given, seed, **settings)

    def descended(temperature: float, *, particles: int = given.particles, **settings: Any) -> dict[str, Any]:
        """As `run`, from the network of 1.5, which was trained on what the hot one was annealed to."""
        train(given, network)
        rung = TrainedExpert(str(lower_network(given, network, system.num_particles)), COLDER_END, max_batch=64)
        measure = partial(compared, system, y=reference.at(temperature))
        many = argparse.Namespace(**{**vars(given), "particles": particles})
        return sampled(rung, 1.5 / temperature, measure, many, seed, proposal=SplitNoise(), **settings)

    yield Cell(f"{name} T={HOT:g}", "base", seed, partial(run, 1.0, HOT))
    yield Cell(f"{name} T={HOT:g}", "floor", seed, partial(floor_of, given, reference, HOT, HOT, seed))
    for temperature in temperatures:
        label, cold = f"{name} T={temperature:g}", partial(run, HOT / temperature, temperature)
        polish = LangevinPolish(system, temperature, num_steps=500, step_size=[0.05, 0.005])
        yield Cell(label, "heuristic", seed, partial(cold, increment=Uncorrected()))
        yield Cell(label, "corrected", seed, cold)
        control = {"control": FittedControl(isotropic=True), "ess_threshold": 0.5}
        yield Cell(label, "corrected, control", seed, partial(cold, **control))
        if temperature == temperatures[0]:
            yield Cell(label, "corrected, Euler-Maruyama", seed, partial(cold, proposal=EulerMaruyama()))
        yield Cell(label, "corrected, polished", seed, partial(cold, polish=polish))
        if temperature == 1.5:
            yield Cell(label, "base, ladder", seed, partial(descended, temperature))
        else:
            descend, many = partial(descended, temperature), 4 * given.particles
            yield Cell(label, "heuristic, ladder", seed, partial(descend, increment=Uncorrected()))
            yield Cell(label, "corrected, ladder", seed, descend)
            yield Cell(label, f"corrected, ladder, K = {many:,}", seed, partial(descend, particles=many))
            yield Cell(label, "corrected, polished, ladder", seed, partial(descend, polish=polish))
        yield Cell(label, "parallel tempering", seed, partial(tempered, given, reference, temperature, seed))
        yield Cell(label, "exact hot sample", seed, partial(floor_of, given, reference, HOT, temperature, seed))
        yield Cell(label, "floor", seed, partial(floor_of, given, reference, temperature, temperature, seed))


def compared(system: LennardJones, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """Distances, and the density of pair distances from 0 to 6."""
    return {
        **cluster_distances(system, x, y),
        "radial": radial_distribution(system.space, x, bins=60, highest=6.0)[1].tolist(),
    }


def reference_of(given: argparse.Namespace, system: LennardJones) -> ClusterReference:
    """The reference of the configuration that trains the networks."""
    if given.quick:
        few = {"num_chains": 16, "num_steps": 300, "burn_in": 100, "file": "outputs/debug/lj13/reference.safetensors"}
        return ClusterReference(system, [1.5, HOT], **few)
    return ClusterReference(system, file="outputs/lj13/reference.safetensors")


def train(given: argparse.Namespace, seed: int) -> None:
    """Train the network of a seed by its configuration, unless it is on disk."""
    folder = given.output / f"lj{5 if given.quick else 13}-network-{seed}"
    if (folder / "config.json").is_file():
        return
    words = ["fit", "--config", str(ROOT / "configs" / ("debug" if given.quick else "correctors") / "lj13_hot.yaml")]
    words += ["--seed_everything", str(seed), "--model.init_args.export_dir", str(folder)]
    words += ["--data.init_args.seed", str(seed), "--trainer.accelerator", "cpu"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(given.output / "training")]
    if given.train_steps is not None:
        words += ["--trainer.max_steps", str(given.train_steps)]
    with patch.object(sys, "argv", ["fklit"]):  # the command line warns of words of its own beside those of Python
        fklit_command(words)


def floor_of(
    given: argparse.Namespace, reference: ClusterReference, drawn: float, temperature: float, seed: int
) -> dict[str, Any]:
    """As many reference samples of one temperature as a run has particles, against the others of a temperature."""
    x, y = reference.at(drawn), reference.at(temperature)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    kept = order[given.particles :] if drawn == temperature else order
    return compared(reference.system, x[order[: given.particles]], y[kept])


def tempered(given: argparse.Namespace, reference: ClusterReference, temperature: float, seed: int) -> dict[str, Any]:
    """Plain parallel tempering of a tenth of the reference's length, from starts of its own."""
    begun = time.perf_counter()
    steps = reference.num_steps // 10
    settings = {"num_chains": reference.num_chains, "num_steps": steps, "burn_in": steps // 2}
    found = parallel_tempering(reference.system, reference.temperatures, seed=1000 + seed, **settings)
    x = found.at(temperature)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: given.particles]]
    seconds = time.perf_counter() - begun
    return {**compared(reference.system, x, reference.at(temperature)), "seconds": seconds}


def particle_mixture() -> GaussianMixture:
    """Four particles in the plane around labeled rhombi and squares: a law of clusters whose powers are exact."""
    space = MeanFreeSpace(4, 2)
    start = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rhombus = space.to_positions(quench(LennardJones(4, 2), start).coordinates[0])
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    orders = ([0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3])
    shapes = [shape[order] for shape in (rhombus, square) for order in orders]
    return GaussianMixture(space.to_coordinates(torch.stack(shapes)), 0.03, [0.28, 0.2, 0.12, 0.2, 0.12, 0.08])
