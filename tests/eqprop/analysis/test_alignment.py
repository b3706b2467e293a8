"""Alignment: against dense solves, at the two ends (tied and independent), and the metric's sums."""

import math

import pytest
import torch
import torch.nn.functional as F
from equilibria import TIGHT, convnet, free_equilibrium, mean_cosines, mlp, relative

from fklit.eqprop.analysis.alignment import error_vectors, symmetry_score, weight_angles
from fklit.eqprop.analysis.references import dense_errors, flatten_state, recurrent_jacobian
from fklit.eqprop.learning.estimators import ExactResponse, RecurrentBackprop
from fklit.eqprop.learning.homeostasis import draw_probes
from fklit.eqprop.network.state import row_norms
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


def test_the_symmetry_score_is_that_of_the_first_samples_jacobians():
    network = mlp(inputs=50, hidden=(32, 24), gain=1.0)
    equilibrium, _, _ = free_equilibrium(network, 5)
    for samples in (1, 3, 9):
        jacobians = recurrent_jacobian(network, equilibrium.state)[:samples] - torch.eye(66, dtype=torch.float64)
        symmetric, skew = (jacobians + jacobians.mT) / 2, (jacobians - jacobians.mT) / 2
        s, a = symmetric.norm(dim=(1, 2)), skew.norm(dim=(1, 2))
        wanted = float((s / (s + a)).mean())
        assert float(symmetry_score(network, equilibrium, samples=samples)) == pytest.approx(wanted, rel=1e-12)
    exact = float(symmetry_score(network, equilibrium, exact_up_to=66))
    assert exact == float(symmetry_score(network, equilibrium))
    assert exact != float(symmetry_score(network, equilibrium, exact_up_to=65, probes=3))


def test_scores_from_probes_are_ratios_of_their_mean_squares():
    network = mlp(inputs=50, hidden=(32, 24))
    equilibrium, _, _ = free_equilibrium(network, 2)
    jacobian = recurrent_jacobian(network, equilibrium.state) - torch.eye(66, dtype=torch.float64)
    v = flatten_state(tuple(p.double() for p in draw_probes(network, range(2), probes=3, seed=5))).view(3, 2, 66, 1)
    s, a = (((jacobian + sign * jacobian.mT) @ v).square().sum((2, 3)).mean(0).sqrt() for sign in (1, -1))
    got = symmetry_score(network, equilibrium, exact_up_to=0, probes=3, seed=5)
    assert float(got) == pytest.approx(float((s / (s + a)).mean()), rel=1e-10)


def test_angles_are_those_of_the_weights():
    network = mlp(inputs=50, hidden=(32, 24), angle=50.0)
    forward, backward = network.link("l1-l2").forward_weight, network.link("l1-l2").backward_weight.T
    cosine = F.cosine_similarity(forward.detach().flatten(), backward.detach().flatten(), dim=0)
    assert weight_angles(network)["l1-l2"] == pytest.approx(math.degrees(math.acos(float(cosine))), rel=1e-9)
    with torch.no_grad():
        network.link("l1-l2").backward_weight.copy_(-network.link("l1-l2").forward_weight.T)
    assert weight_angles(network)["l1-l2"] == pytest.approx(180)


def test_gradients_are_sums_over_usable_samples():
    network = mlp(inputs=50, hidden=(32, 24), estimator=ExactResponse(relaxation=TIGHT), free=Relaxation(6, 1e-5))
    equilibrium, _, force = free_equilibrium(network, 8)
    vectors = error_vectors(network, equilibrium, force)
    used = vectors.usable
    assert used.any() and not used.all()
    s = equilibrium.state[0][used]
    for gradients, error in (
        (vectors.gradients, vectors.error),
        (vectors.reference_gradients, vectors.reference),
    ):
        torch.testing.assert_close(gradients["links.l1-l2.forward_weight"], error[1][used].T @ s)


def test_a_dense_jacobian_is_refused_for_large_networks():
    network = mlp(inputs=5, hidden=(1991,), num_outputs=10, dtype=torch.float32)
    with pytest.raises(ValueError, match="expected at most 2000 neurons for a dense Jacobian, got 2001"):
        recurrent_jacobian(network, network.zero_state(1))


def test_the_reference_takes_400_iterations_to_1e_6_for_a_cotangent_of_norm_1(monkeypatch):
    asked = []
    respond = RecurrentBackprop.respond

    def recording(self, network, equilibrium, force):
        asked.append((self.relaxation, row_norms(force)))
        return respond(self, network, equilibrium, force)

    monkeypatch.setattr(RecurrentBackprop, "respond", recording)
    network = mlp(inputs=50, hidden=(32, 24))
    equilibrium, _, force = free_equilibrium(network, 3)
    error_vectors(network, equilibrium, tuple(7 * part for part in force))
    ((relaxation, norms),) = asked
    assert relaxation == Relaxation(max_iterations=400, tolerance=1e-6)
    torch.testing.assert_close(norms, torch.ones_like(norms))
