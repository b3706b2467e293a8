"""Error vectors against dense solves: orders in beta, phases, float32, conv nets, and the bias of asymmetry."""

import pytest
import torch
from equilibria import TIGHT, convnet, cosine, flat, free_equilibrium, images, mean_cosines, mlp, relative

from fklit.eqprop.analysis.references import dense_errors, equilibrium_jacobian, flatten_state
from fklit.eqprop.learning.autograd import local_gradients
from fklit.eqprop.learning.estimators import (
    Cauchy,
    ComplexStep,
    CorrectedNudge,
    ExactResponse,
    OneSided,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.learning.online import Online
from fklit.eqprop.learning.phases import complex_deviation, complex_phases, contour
from fklit.eqprop.network.activations import HardSigmoid
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation

NUDGED = Relaxation(max_iterations=200, tolerance=1e-14)


def gradient(network, equilibrium, error):
    """Gradient of all weights of the dynamics, as one vector."""
    weights = {name: w for name, w in network.named_parameters() if not name.startswith("readout")}
    found, _ = local_gradients(network, equilibrium.state, equilibrium.x, error, weights, to_input=False)
    return tuple(found[name] for name in sorted(found))


@pytest.fixture(scope="module")
def tied():
    network = mlp(tied=True)
    equilibrium, nudge, force = free_equilibrium(network)
    return network, equilibrium, nudge, force, dense_errors(network, equilibrium, force)[1]


@pytest.fixture(scope="module")
def untied():
    network = mlp(angle=90)
    equilibrium, nudge, force = free_equilibrium(network)
    return network, equilibrium, nudge, force, dense_errors(network, equilibrium, force)[1]


@pytest.mark.parametrize("live", [True, False], ids=["live", "constant"])
@pytest.mark.parametrize("phases", [2, 3, 4, 6])
def test_the_error_is_of_order_n(tied, phases, live):
    """Errors of the gradient at beta 0.2 and 0.05 differ by 4^N: the only term left is a_(N+1) beta^N."""
    network, equilibrium, nudge, force, truth = tied
    wanted = gradient(network, equilibrium, truth)
    errors = []
    for beta in (0.2, 0.05):
        response = contour(
            network, equilibrium, nudge if live else force, num_phases=phases, beta=beta, relaxation=NUDGED
        )
        got = gradient(network, equilibrium, response.error)
        errors.append(relative(got, wanted))
        if beta == 0.05:
            assert cosine(got, wanted) > 0.99999
    assert errors[0] / errors[1] == pytest.approx(4**phases, rel=0.1)
    assert errors[1] < {2: 5e-3, 3: 5e-4, 4: 1e-5, 6: 1e-7}[phases]


def test_one_sided_is_of_order_one(tied):
    network, equilibrium, nudge, _, truth = tied
    errors = [
        relative(OneSided(beta, relaxation=NUDGED).respond(network, equilibrium, nudge).error, truth)
        for beta in (0.02, 0.005)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_classes_are_the_contour(tied):
    network, equilibrium, nudge, _, _ = tied
    for estimator, phases in ((OneSided(0.2), 1), (Symmetric(0.2), 2), (Cauchy(5, 0.2), 5)):
        relaxation = Relaxation(max_iterations=20, tolerance=1e-6)
        wanted = contour(network, equilibrium, nudge, num_phases=phases, beta=0.2, relaxation=relaxation)
        assert torch.equal(flat(estimator.respond(network, equilibrium, nudge).error), flat(wanted.error))


def test_conjugate_halves_equal_the_full_circle(tied):
    """All N phases, run as complex numbers one by one, give what the real phases and half of the pairs give."""
    network, equilibrium, nudge, _, _ = tied
    total = [torch.zeros_like(part) for part in equilibrium.state]
    for k in range(5):
        beta = 0.2 * complex(torch.exp(torch.tensor(2j * torch.pi * k / 5, dtype=torch.complex128)))
        field, start = complex_phases(network, equilibrium, nudge, [beta], arithmetic="native")
        state = relax(field, start, NUDGED).state
        for i, deviation in enumerate(complex_deviation(state, equilibrium.state, 1)):
            total[i] = total[i] + (deviation[0] / beta / 5).real
    got = contour(network, equilibrium, nudge, num_phases=5, beta=0.2, relaxation=NUDGED)
    assert relative(got.error, total) < 1e-10


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("live", [True, False], ids=["live", "constant"])
def test_split_equals_native(kind, live):
    network = mlp(inputs=30, hidden=(20, 15)) if kind == "mlp" else convnet((4, 6, 8), shape=(3, 16, 16), tied=False)
    equilibrium, nudge, force = free_equilibrium(network, 4)
    for make in (lambda a: Cauchy(6, 0.3, arithmetic=a), lambda a: ComplexStep(1e-2, arithmetic=a)):
        split, native = (make(a).respond(network, equilibrium, nudge if live else force) for a in ("split", "native"))
        assert relative(split.error, native.error) < 1e-9


def test_float32():
    """Complex step has no cancellation: it is right to 1e-5 where two real phases are not."""
    network = mlp(tied=True, dtype=torch.float32, free=Relaxation(max_iterations=60, tolerance=0.0))
    equilibrium, nudge, _ = free_equilibrium(network)
    double = mlp(tied=True)
    exact, _, exact_force = free_equilibrium(double)
    truth = gradient(double, exact, dense_errors(double, exact, exact_force)[1])
    fixed = Relaxation(max_iterations=60, tolerance=0.0)

    def error(response):
        return relative(gradient(network, equilibrium, response.error), truth)

    assert error(Cauchy(6, 0.2, relaxation=fixed).respond(network, equilibrium, nudge)) < 1e-4
    assert error(ComplexStep(1e-3, relaxation=fixed).respond(network, equilibrium, nudge)) < 1e-5
    assert error(Symmetric(1e-3, relaxation=fixed).respond(network, equilibrium, nudge)) > 1e-4


@pytest.mark.slow
def test_conv_net():
    """The published topology at 16-32-64-64 channels, tied, beta = 1, against recurrent backpropagation."""
    network = convnet((16, 32, 64, 64), tied=True)
    equilibrium, nudge, force = free_equilibrium(network, 4)
    truth = RecurrentBackprop(relaxation=TIGHT).respond(network, equilibrium, force).error
    wanted = gradient(network, equilibrium, truth)
    relaxation = Relaxation(max_iterations=60, tolerance=1e-9)
    for phases, limit in ((2, 2e-2), (4, 1e-3), (6, 1e-4)):
        response = contour(network, equilibrium, nudge, num_phases=phases, beta=1.0, relaxation=relaxation)
        got = gradient(network, equilibrium, response.error)
        assert relative(got, wanted) < limit and cosine(got, wanted) > 0.999


def test_untied_mlp_is_biased_whatever_the_phases(untied):
    network, equilibrium, nudge, _, truth = untied
    wanted = gradient(network, equilibrium, truth)
    cosines = []
    for phases in (4, 6):
        error = contour(network, equilibrium, nudge, num_phases=phases, beta=0.05, relaxation=NUDGED).error
        assert mean_cosines(error, truth)[0] < 0.3
        cosines.append(cosine(gradient(network, equilibrium, error), wanted))
    assert max(cosines) < 0.5 and abs(cosines[0] - cosines[1]) < 1e-3


def test_untied_conv_net_is_biased():
    network = convnet((16, 32, 64, 64), tied=False, angle=90.0)
    equilibrium, _, force = free_equilibrium(network, 4)
    truth = RecurrentBackprop(relaxation=TIGHT).respond(network, equilibrium, force).error
    error = ExactResponse(relaxation=TIGHT).respond(network, equilibrium, force).error
    cosines = mean_cosines(error, truth)
    assert all(abs(c) < 0.3 for c in cosines[:3])


def test_transfer_between_error_vectors(untied):
    """e = J^-1 J^T delta exactly, for the solved and for the relaxed response."""
    network, equilibrium, _, force, truth = untied
    jacobian = equilibrium_jacobian(network, equilibrium)
    moved = torch.linalg.solve(jacobian, (jacobian.mT @ flatten_state(truth)[..., None]))[..., 0]
    solved = flatten_state(dense_errors(network, equilibrium, force)[0])
    assert float((solved - moved).norm() / solved.norm()) < 1e-10
    relaxed = ExactResponse(relaxation=TIGHT).respond(network, equilibrium, force).error
    assert float((flatten_state(relaxed) - moved).norm() / solved.norm()) < 1e-10


def test_first_order_in_the_asymmetry():
    """e = delta - 2 S^-1 A delta + o(A): the remainder grows fourfold from 1 to 2 degrees."""
    remainders, deviations = [], []
    for angle in (1.0, 2.0):
        network = mlp(angle=angle)
        equilibrium, _, force = free_equilibrium(network)
        e, delta = (flatten_state(v) for v in dense_errors(network, equilibrium, force))
        jacobian = equilibrium_jacobian(network, equilibrium)
        symmetric, skew = (jacobian + jacobian.mT) / 2, (jacobian - jacobian.mT) / 2
        step = 2 * torch.linalg.solve(symmetric, skew @ delta[..., None])[..., 0]
        deviations.append(float((e - delta).norm() / delta.norm()))
        remainders.append(float((e - delta + step).norm() / delta.norm()))
    assert deviations[1] / deviations[0] == pytest.approx(2, rel=0.05)
    assert 3.6 <= remainders[1] / remainders[0] <= 4.4


@pytest.mark.parametrize("make", [mlp, lambda: LoopNet((784,), (64, 64), gain=0.5, free=TIGHT).double()])
def test_linear_iterations_equal_dense_solves(make):
    network = make()
    equilibrium, _, force = free_equilibrium(network, 4)
    e, delta = dense_errors(network, equilibrium, force)
    assert relative(ExactResponse(relaxation=TIGHT).respond(network, equilibrium, force).error, e) < 1e-9
    assert relative(RecurrentBackprop(relaxation=TIGHT).respond(network, equilibrium, force).error, delta) < 1e-9


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_tied_jacobians_are_symmetric(kind):
    network = mlp(tied=True, inputs=30, hidden=(20, 15)) if kind == "mlp" else convnet((3, 4), shape=(2, 8, 8))
    equilibrium, _, _ = free_equilibrium(network, 2)
    jacobian = equilibrium_jacobian(network, equilibrium)
    assert float((jacobian - jacobian.mT).norm() / jacobian.norm()) < 1e-12


def test_online_after_one_turn(tied):
    network, equilibrium, nudge, _, truth = tied
    for from_zero in (False, True):
        online = Online(4, 0.2, iterations_per_phase=20, num_periods=1, from_zero=from_zero)
        response = online.respond(network, equilibrium, nudge)
        assert cosine(response.error, truth) > 0.999
        assert relative(response.gradient_state, equilibrium.state) < 1e-2


def test_turning_too_fast_costs(tied):
    network, equilibrium, nudge, _, truth = tied
    error = {
        count: relative(Online(16, 0.2, iterations_per_phase=count).respond(network, equilibrium, nudge).error, truth)
        for count in (2, 20)
    }
    assert error[20] < 1e-5 < error[2]


@pytest.mark.parametrize("live", [True, False], ids=["live", "constant"])
def test_corrected_nudge_is_unbiased(untied, live):
    network, equilibrium, nudge, force, truth = untied
    response = CorrectedNudge(0.05, relaxation=NUDGED).respond(network, equilibrium, nudge if live else force)
    assert cosine(gradient(network, equilibrium, response.error), gradient(network, equilibrium, truth)) > 0.9999
    assert cosine(response.error, truth) > 0.9999


def test_a_sample_does_not_depend_on_its_neighbors():
    network = mlp(inputs=30, hidden=(20, 15), free=Relaxation(tolerance=1e-4))
    equilibrium, _, force = free_equilibrium(network, 6)
    together = Cauchy(4, 0.3).respond(network, equilibrium, force).error
    x, _ = images(6, (30,))
    alone = network.free_equilibrium(x[2:3])
    assert int(alone.result.iterations) == int(equilibrium.result.iterations[2])
    error = Cauchy(4, 0.3).respond(network, alone, tuple(part[2:3] for part in force)).error
    assert relative(error, tuple(part[2:3] for part in together)) < 1e-12


def test_diverged_phases_have_an_error_of_zero():
    network = mlp(inputs=30, hidden=(20, 15))
    equilibrium, _, force = free_equilibrium(network, 3)
    force = tuple(part * torch.tensor([1.0, 1e6, 1.0])[:, None] for part in force)
    estimator = Symmetric(0.1, relaxation=Relaxation(max_iterations=20, tolerance=1e-6, bound=0.99999))
    response = estimator.respond(network, equilibrium, force)
    assert response.diverged.tolist() == [False, True, False]
    assert not flatten_state(response.error)[1].any() and flatten_state(response.error)[0].any()


def test_bad_arguments():
    for make in (OneSided, Symmetric, ComplexStep, CorrectedNudge):
        with pytest.raises(ValueError, match="beta=0"):
            make(0)
    with pytest.raises(ValueError, match="num_phases=2"):
        Cauchy(2)
    with pytest.raises(ValueError, match="arithmetic='quaternion'"):
        Cauchy(4, arithmetic="quaternion")
    with pytest.raises(ValueError, match="num_periods=0"):
        Online(num_periods=0)


@pytest.mark.parametrize("estimator", [Cauchy(), ComplexStep(), Online()], ids=lambda e: type(e).__name__)
def test_complex_phases_need_holomorphic_activations(estimator):
    with pytest.raises(ValueError, match=r"expected holomorphic activations .*, got HardSigmoid\(\);"):
        mlp(inputs=5, hidden=(4,), activation=HardSigmoid(), estimator=estimator)
    network = mlp(inputs=5, hidden=(4,), activation=HardSigmoid())
    equilibrium, nudge, _ = free_equilibrium(network, 2)
    assert torch.isfinite(flat(Symmetric().respond(network, equilibrium, nudge).error)).all()
    with pytest.raises(ValueError, match="expected holomorphic activations"):
        estimator.respond(network, equilibrium, nudge)


@pytest.mark.parametrize("arithmetic", ["split", "native"])
def test_complex_step_converges_in_single_precision(arithmetic):
    """Its residual is that of the imaginary parts: the real ones' rounding alone is above a tolerance of 1e-6 beta."""
    network = mlp(tied=True, dtype=torch.float32, free=Relaxation(tolerance=1e-6))
    equilibrium, nudge, _ = free_equilibrium(network, 4)
    relaxation = Relaxation(max_iterations=100, tolerance=1e-9)
    (result,) = (
        ComplexStep(1e-3, arithmetic=arithmetic, relaxation=relaxation).respond(network, equilibrium, nudge).results
    )
    assert result.converged.all() and result.iterations.max() < 50


@pytest.mark.slow
@pytest.mark.parametrize("phases", [3, 4])
@pytest.mark.parametrize("periods", [1, 2])
@pytest.mark.parametrize("from_zero", [False, True])
def test_a_slow_oscillation_is_the_contour(tied, phases, periods, from_zero):
    """With enough iterations at each point there are no transients left; the mean state is that of the phases."""
    network, equilibrium, nudge, _, _ = tied
    online = Online(phases, 0.3, iterations_per_phase=80, num_periods=periods, from_zero=from_zero)
    response = online.respond(network, equilibrium, nudge)
    wanted = contour(network, equilibrium, nudge, num_phases=phases, beta=0.3, relaxation=NUDGED)
    assert relative(response.error, wanted.error) < 1e-9
    assert len(response.results) == phases * periods
    assert all(result.iterations.eq(80).all() for result in response.results)
    total = [torch.zeros_like(part) for part in equilibrium.state]
    for k in range(phases):
        beta = 0.3 * complex(torch.exp(torch.tensor(2j * torch.pi * k / phases, dtype=torch.complex128)))
        field, start = complex_phases(network, equilibrium, nudge, [beta], arithmetic="native")
        for i, part in enumerate(relax(field, start, NUDGED).state):
            total[i] = total[i] + part.real / phases
    assert relative(response.gradient_state, total) < 1e-9
