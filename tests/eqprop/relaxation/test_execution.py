"""Switches for speed: the same fixed points and gradients, up to rounding."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import convnet, images, mlp, relative

from fklit.eqprop.learning.estimators import Cauchy, Symmetric
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


def test_refused():
    with pytest.raises(ValueError, match="expected free_precision 'full', 'bfloat16' or 'float16', got 'int8'"):
        Execution(free_precision="int8")


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
