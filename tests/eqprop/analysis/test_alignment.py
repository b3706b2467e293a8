"""Alignment: against dense solves, at the two ends (tied and independent), and the metric's sums."""

import pytest
import torch
from equilibria import TIGHT, convnet, free_equilibrium, mean_cosines, mlp, relative

from fklit.eqprop.analysis.alignment import error_vectors, symmetry_score, weight_angles
from fklit.eqprop.analysis.references import dense_errors
from fklit.eqprop.learning.estimators import ExactResponse, RecurrentBackprop
from fklit.eqprop.relaxation.settings import Relaxation


def test_error_vectors_equal_dense_solves():
    network = mlp(inputs=50, hidden=(32, 24), estimator=RecurrentBackprop())
    equilibrium, _, force = free_equilibrium(network, 6)
    vectors = error_vectors(network, equilibrium, force, relaxation=TIGHT)  # the exact response, for this network
    e, delta = dense_errors(network, equilibrium, force)
    assert relative(vectors.error, e) < 1e-4 and relative(vectors.reference, delta) < 1e-9
    assert vectors.usable.all()
    gradient = delta[1].T @ equilibrium.state[0]
    torch.testing.assert_close(vectors.reference_gradients["links.l1-l2.forward_weight"], gradient)
    assert set(vectors.gradients) == {name for name, _ in network.named_parameters() if "readout" not in name}


def test_tied_is_aligned():
    network = mlp(tied=True, inputs=50, hidden=(32, 24), estimator=ExactResponse(relaxation=TIGHT))
    equilibrium, _, force = free_equilibrium(network, 6)
    vectors = error_vectors(network, equilibrium, force, relaxation=TIGHT)
    assert min(mean_cosines(vectors.error, vectors.reference)) > 1 - 1e-9
    assert float(symmetry_score(network, equilibrium)) == pytest.approx(1, abs=1e-9)
    assert weight_angles(network) == pytest.approx({"l1-l2": 0, "l2-out": 0}, abs=1e-3)


def test_unconverged_samples_are_masked():
    network = mlp(inputs=50, hidden=(32, 24), gain=1.0, free=Relaxation(tolerance=1e-6))
    needed = free_equilibrium(network, 12)[0].result.iterations
    network.free = Relaxation(max_iterations=int(needed.median()), tolerance=1e-6)
    equilibrium, _, force = free_equilibrium(network, 12)
    converged = equilibrium.result.converged
    assert converged.any() and not converged.all()
    assert torch.equal(error_vectors(network, equilibrium, force).usable, converged)


@pytest.mark.parametrize("make", [mlp, lambda **k: convnet((3, 4), tied=False, shape=(2, 8, 8))])
def test_symmetry_score_from_probes(make):
    network = make(inputs=50, hidden=(32, 24))
    equilibrium, _, _ = free_equilibrium(network, 2)
    exact = float(symmetry_score(network, equilibrium))
    estimate = float(symmetry_score(network, equilibrium, exact_up_to=1, probes=2000))
    assert 0.5 < exact < 0.99 and estimate == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_weight_angles(angle):
    network = mlp(inputs=300, hidden=(300, 300), angle=angle)
    assert weight_angles(network)["l1-l2"] == pytest.approx(angle, abs=1.0)
