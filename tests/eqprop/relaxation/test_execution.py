"""Switches for speed: the same fixed points and gradients, up to rounding."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import convnet, images, mlp, relative

from fklit.eqprop.learning import linear_response
from fklit.eqprop.learning.estimators import Cauchy, CorrectedNudge, ExactResponse, RecurrentBackprop, Symmetric
from fklit.eqprop.learning.nudges import CrossEntropyNudge
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.relaxation import fields, free_phase
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation

FREE = Relaxation(max_iterations=200, tolerance=1e-5)


def make(kind, execution=None, **more):
    more.setdefault("free", FREE)
    if kind == "mlp":
        return mlp(inputs=50, hidden=(32, 24), gain=1.0, dtype=torch.float32, execution=execution, **more)
    return convnet((6, 8, 10), shape=(3, 16, 16), tied=False, dtype=torch.float32, execution=execution, **more)


def step(network, samples=6, live=False):
    x, y = images(samples, network.input_shape, dtype=torch.float32)
    network.zero_grad()
    F.cross_entropy(network(x, CrossEntropyNudge(y, 10) if live else None), y).backward()
    return tuple(weight.grad.clone() for weight in network.parameters())


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_free_phase_that_starts_in_low_precision_ends_where_the_full_one_does(kind, low):
    full, mixed = make(kind), make(kind, Execution(free_precision=low))
    x, _ = images(6, full.input_shape, dtype=torch.float32)
    a, b = full.free_equilibrium(x), mixed.free_equilibrium(x)
    assert b.result.converged.all() and (b.result.residual < FREE.tolerance).all()
    assert all(part.dtype == torch.float32 for part in b.state)
    assert relative(b.state, a.state) < 1e-3  # both within the tolerance's reach of the fixed point
    assert relative(step(mixed), step(full)) < 1e-2


def test_low_precision_saves_iterations_in_full_precision(monkeypatch):
    counts = {torch.bfloat16: 0, torch.float32: 0}
    original = fields.new_activities

    def counting(network, given, state, layers, split):
        counts[state[0].dtype] += 1
        return original(network, given, state, layers, split)

    monkeypatch.setattr(fields, "new_activities", counting)
    network = make("mlp")
    x, _ = images(6, network.input_shape, dtype=torch.float32)
    network.free_equilibrium(x)
    full = counts[torch.float32]
    network.execution = Execution(free_precision="bfloat16")
    network.free_equilibrium(x)
    assert counts[torch.bfloat16] > 0 and counts[torch.float32] - full < full


def test_samples_that_diverge_in_low_precision_start_afresh():
    """Weights beyond the range of float16: everything there is infinite, and nothing of it is left."""
    full, mixed = make("mlp"), make("mlp", Execution(free_precision="float16"))
    for network in (full, mixed):
        with torch.no_grad():
            network.link("input-l1").forward_weight[0] = 1e5
    x, _ = images(4, full.input_shape, dtype=torch.float32)
    a, b = full.free_equilibrium(x), mixed.free_equilibrium(x)
    assert torch.isfinite(b.state[0]).all() and b.result.converged.all()
    assert relative(b.state, a.state) < 1e-3


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
@pytest.mark.parametrize("estimator", [Symmetric(0.5), Cauchy(4, 0.5)], ids=lambda e: type(e).__name__)
def test_channels_last(estimator, live):
    plain = make("conv", estimator=estimator)
    last = make("conv", Execution(channels_last=True), estimator=estimator)
    x, _ = images(6, plain.input_shape, dtype=torch.float32)
    state = last.free_equilibrium(x).state
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in state)
    assert relative(state, plain.free_equilibrium(x).state) < 1e-5
    assert relative(step(last, live=live), step(plain, live=live)) < 1e-4


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
@pytest.mark.parametrize("estimator", [ExactResponse, RecurrentBackprop])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_response_that_starts_in_low_precision_ends_where_the_full_one_does(kind, estimator, live):
    estimator = estimator(relaxation=Relaxation(max_iterations=200, tolerance=1e-6))
    full = make(kind, estimator=estimator)
    mixed = make(kind, Execution(response_precision="bfloat16"), estimator=estimator)
    assert relative(step(mixed, live=live), step(full, live=live)) < 1e-4


def test_a_response_in_low_precision_saves_iterations_whatever_the_size_of_the_force():
    """The response is linear: a thousand times the force takes the same iterations to a thousand times the response."""
    network = make("conv", estimator=ExactResponse())
    x, _ = images(6, network.input_shape, dtype=torch.float32)
    equilibrium = network.free_equilibrium(x)
    force = tuple(torch.randn_like(part) for part in equilibrium.state)
    counts = {}
    for low in ("full", "bfloat16"):
        network.execution = Execution(response_precision=low)
        for size in (1.0, 1000.0):
            asked = []

            def recording(field, start, relaxation, asked=asked):
                result = relax(field, start, relaxation)
                asked.append((start[0].dtype, int(result.iterations.sum())))
                return result

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(linear_response, "relax", recording)
                how = Relaxation(max_iterations=200, tolerance=1e-5 * size)
                forces = tuple(size * part for part in force)
                result = linear_response.relax_response(network, equilibrium, forces, how, transposed=False)
            assert result.converged.all() and int(result.iterations.sum()) == sum(count for _, count in asked)
            counts[low, size] = asked
        assert counts[low, 1.0][0] == counts[low, 1000.0][0]
    assert counts["bfloat16", 1.0][0][0] == torch.bfloat16
    assert counts["bfloat16", 1.0][1][1] < 0.8 * counts["full", 1.0][0][1]


def test_a_finite_nudge_in_low_precision_is_refused():
    low = Execution(response_precision="bfloat16")
    for estimator in (Symmetric(0.1), CorrectedNudge(0.1)):
        with pytest.raises(
            ValueError, match=r"expected ExactResponse or RecurrentBackprop for execution\.response_pre"
        ):
            make("mlp", low, estimator=estimator)
    network = make("mlp", low, estimator=ExactResponse())
    network.estimator = Symmetric(0.1)
    with pytest.raises(ValueError, match="got Symmetric, whose small differences of states do not survive it"):
        step(network)


def test_refused():
    with pytest.raises(ValueError, match="expected free_precision 'full', 'bfloat16' or 'float16', got 'int8'"):
        Execution(free_precision="int8")
    with pytest.raises(
        ValueError, match="expected response_precision 'full' or 'bfloat16', got response_precision='flo"
    ):
        Execution(response_precision="float16")


@pytest.mark.parametrize(("low", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_the_low_precision_runs_to_its_rounding_for_half_of_the_iterations(monkeypatch, low, dtype):
    asked = []

    def recording(field, start, relaxation, **more):
        asked.append((start[0].dtype, relaxation, more))
        return relax(field, start, relaxation, **more)

    monkeypatch.setattr(free_phase, "relax", recording)
    for tolerance, iterations in ((1e-5, 7), (0.5, 8)):
        free = Relaxation(max_iterations=iterations, tolerance=tolerance)
        network = make("mlp", Execution(free_precision=low), free=free)
        x, _ = images(3, network.input_shape, dtype=torch.float32)
        coarse = max(tolerance, 2 * torch.finfo(dtype).eps)
        asked.clear()
        result = network.free_equilibrium(x).result
        assert asked == [
            (dtype, Relaxation(max_iterations=4, tolerance=coarse), {}),
            (torch.float32, free, {"detect_period_two": True}),
        ]
        assert result.iterations.min() > (0 if tolerance < 0.5 else 1)  # those of both are counted
