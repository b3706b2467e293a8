"""Corrected annealing of clusters: exact on harmonic ones and on particle mixtures; the configurations run."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from fklit.analytic import GaussianMixture, power
from fklit.cli import main
from fklit.correctors import (
    EDM,
    Comparison,
    FittedControl,
    GaussianControl,
    Polish,
    ScoreModel,
    Target,
    Uncorrected,
    simulate,
)
from fklit.correctors.simulation.task import SimulationTask
from fklit.metrics.distributions import wasserstein_line
from fklit.molecules import HarmonicCluster, LennardJones, MeanFreeSpace, quench

DEBUG = Path(__file__).parents[2] / "configs" / "debug"
PATH = EDM(0.02, 6.0, 3.0)
SYSTEM = HarmonicCluster([[0.0, 1.0, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 2.0], [0.0, 0.0, 2.0, 0.0]], 2)


def denoiser(law):
    """The exact denoiser of a law, called as a network is."""

    def denoised(x, sigma):
        return law.denoised(x, 1.0, float(sigma[0]))

    return denoised


def test_the_harmonic_cluster_is_annealed_to_its_exact_law():
    """All moments within three standard errors, through a denoiser, the mean-free start, the weights, the control."""
    hot, cold = SYSTEM.law(2.0), SYSTEM.law(1.5)
    expert = ScoreModel(denoiser(hot), PATH, prediction="edm", event_shape=(6,)).given()
    groups, particles = 16, 250
    result = simulate(
        Target.annealed(expert, 2.0 / 1.5), num_particles=particles, num_groups=groups, num_steps=300,
        control=FittedControl(), ess_threshold=0.5, dtype=torch.float64, seed=3,
    )  # fmt: skip
    weights = result.log_weights.exp()
    products = torch.einsum("bk,bki,bkj->bij", weights, result.samples, result.samples)
    wanted = torch.linalg.inv(SYSTEM.stiffness) * 1.5
    error = products.std(0) / math.sqrt(groups)
    # Euler's 300 steps have a bias of a hundredth of the variance.
    assert float(((products.mean(0) - wanted).abs() / error).max()) < 3.0
    means = torch.einsum("bk,bki->bi", weights, result.samples)
    assert float((means.mean(0).abs() / (means.std(0) / math.sqrt(groups))).max()) < 3.0
    energies = (weights * SYSTEM.energy(result.samples)).sum(1)
    assert abs(float(energies.mean()) - 3 * 1.5) < 3 * float(energies.std()) / math.sqrt(groups)
    assert float(cold.moments()[1].sum()) == pytest.approx(float(wanted.trace()))
    positions = SYSTEM.space.to_positions(result.samples)
    assert float(positions.mean(dim=-2).abs().max()) < 1e-6


def particle_mixture():
    """Four particles in the plane around labeled rhombi and squares: a law of clusters whose powers are exact."""
    space = MeanFreeSpace(4, 2)
    start = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rhombus = space.to_positions(quench(LennardJones(4, 2), start).coordinates[0])
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    orders = ([0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3])
    shapes = [shape[order] for shape in (rhombus, square) for order in orders]
    weights = [0.28, 0.2, 0.12, 0.2, 0.12, 0.08]
    return GaussianMixture(space.to_coordinates(torch.stack(shapes)), 0.03, weights)


@pytest.mark.parametrize("beta", [2, 3])
def test_a_particle_mixture_has_the_right_energies_with_weights_and_not_without(beta):
    """With the exact score of a law of many modes, what is left of the error is the method's own."""
    law = particle_mixture()
    truth = power(law, beta)
    expert = ScoreModel(denoiser(law), PATH, prediction="edm", event_shape=(6,)).given()

    def distance(**settings):
        result = simulate(
            Target.annealed(expert, float(beta)), num_particles=1000, num_groups=2, num_steps=100,
            dtype=torch.float64, seed=1, **settings,
        )  # fmt: skip
        x = result.sample(1000).flatten(0, 1)
        y = truth.sample((3000,), torch.Generator().manual_seed(9), dtype=torch.float64)
        return wasserstein_line(-law.log_density(x), -law.log_density(y))[0]

    plain, corrected = distance(increment=Uncorrected()), distance(control=FittedControl(), ess_threshold=0.5)
    assert plain > 0.3 and corrected < 0.6 * plain, (plain, corrected)


class _Doubled(Polish):
    def __call__(self, samples, generator):
        assert len(generator) == samples.shape[0]
        return 2 * samples


class _Scale(Comparison):
    names = ("scale",)

    def figures(self, points, index):
        return {"scale": float(points.abs().mean()) + 100 * index}


def test_a_task_takes_a_comparison_and_a_polish():
    target = Target.annealed(SYSTEM.law(2.0).on(PATH), 1.2)
    settings = {"num_particles": 8, "num_steps": 5, "control": GaussianControl()}
    plain = SimulationTask(target, **settings)
    task = SimulationTask(target, comparison=_Scale(), polish=_Doubled(), **settings)
    batch = {"indices": [0, 3]}
    one, two = plain.predict_step(batch, 0), task.predict_step(batch, 0)
    torch.testing.assert_close(two.samples, 2 * one.samples)
    torch.testing.assert_close(two.log_weights, one.log_weights)
    figures = task.figures(two, 1, 3)
    assert 300 < figures["scale"] < 400 and "min_ess" in figures and "scale" in task.means
    names = _Scale()
    names.names = ("log_z",)
    with pytest.raises(ValueError, match="expected new names of a comparison, got"):
        SimulationTask(target, comparison=names)


@pytest.mark.slow
# A network of twenty steps puts particles too close.
@pytest.mark.filterwarnings("ignore:.* samples were moved by none")
def test_the_debug_configurations_train_hot_and_sample_cold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["fit", "--config", str(DEBUG / "lj13_hot.yaml")])
    found = main(["test", "--config", str(DEBUG / "lj13_anneal.yaml")]).trainer.callback_metrics
    assert {"test/energy_w1", "test/energy_w2", "test/distance_w2", "test/mode_tv", "test/min_ess"} <= set(found)
    assert all(math.isfinite(float(value)) for value in found.values())
    main(["predict", "--config", str(DEBUG / "lj13_anneal.yaml")])
    assert json.loads(Path("outputs/debug/lj13/anneal/00002.json").read_text())["num_steps"] == 30
