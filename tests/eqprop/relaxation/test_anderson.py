"""Anderson acceleration: the suggested points against least squares written anew, safeguards, and the same results."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from equilibria import convnet, images, mlp, relative

from fklit.eqprop.learning.estimators import (
    Cauchy,
    ComplexStep,
    ExactResponse,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.learning.online import Online
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.anderson import Anderson
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation


class Affine:
    """`s <- M s + b`, one matrix and one vector a sample; counts its evaluations."""

    parts = 1
    execution = Execution()
    colors = ((0,),)

    def __init__(self, matrix, offset, counted=None):
        self.matrix, self.offset = matrix, offset
        self.counted = [] if counted is None else counted

    def update(self, state, layers):
        self.counted.append(len(state[0]))
        return {0: (self.matrix @ state[0][..., None])[..., 0] + self.offset}

    def select(self, samples):
        return Affine(self.matrix[samples], self.offset[samples], self.counted)


def contraction(samples=5, size=6, radius=0.9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(samples, size, size, generator=generator, dtype=torch.float64)).Q
    values = radius * torch.rand(samples, size, generator=generator, dtype=torch.float64)
    values[:, 0] = radius
    offset = 0.005 * torch.randn(samples, size, generator=generator, dtype=torch.float64)
    return Affine(basis @ torch.diag_embed(values) @ basis.mT, offset)


def suggested(points, images, damping):
    """The next point from a history, by weights that add up to 1 and a library's least squares."""
    residuals = [g - x for x, g in zip(points, images, strict=True)]
    differences = torch.stack([f - residuals[-1] for f in residuals[:-1]], 1)
    free = torch.linalg.lstsq(differences, -residuals[-1][:, None]).solution[:, 0]
    weights = torch.cat([free, (1 - free.sum())[None]])
    mean = sum(w * x for w, x in zip(weights, points, strict=True))
    return mean + damping * sum(w * f for w, f in zip(weights, residuals, strict=True))


@pytest.mark.parametrize("damping", [1.0, 0.4])
def test_points_are_those_of_least_squares(damping):
    """Driven by hand through plain, extrapolated, plain and extrapolated iterations of one sample each."""
    field = contraction(3, size=6)
    memory = Anderson(4, damping)
    point, states, images = torch.zeros(3, 6, dtype=torch.float64), [], []
    yes = torch.ones(3, dtype=torch.bool)
    for turn in range(6):
        image = field.update((point,), [0])[0]
        refused = memory.refuse((point,), (image,), yes)
        assert refused is None or not refused.any()
        states, images = [*states, point][-5:], [*images, image][-5:]
        (point,) = memory.next_point((image,), None)
        for i in range(3):
            if turn % 2 == 0:
                wanted = images[-1][i]
            else:
                wanted = suggested([s[i] for s in states], [g[i] for g in images], damping)
            torch.testing.assert_close(point[i], wanted, rtol=1e-6, atol=1e-9)


def test_affine_maps_are_solved_in_as_many_iterations_as_they_have_dimensions():
    field = contraction(radius=0.99)
    start = (torch.zeros(5, 6, dtype=torch.float64),)
    wanted = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - field.matrix, field.offset)
    plain = relax(field, start, Relaxation(5000, 1e-10))
    fast = relax(field, start, Relaxation(5000, 1e-10, anderson_window=6))
    assert plain.converged.all() and fast.converged.all()
    assert fast.iterations.max() < 40 < 500 < plain.iterations.min()
    torch.testing.assert_close(fast.state[0], wanted, rtol=1e-6, atol=1e-9)


def test_points_that_raise_the_residual_are_refused_and_the_plain_step_is_taken_from_before():
    memory = Anderson(2, 1.0)
    yes = torch.ones(2, dtype=torch.bool)

    def turn(point, image, state, inside=yes):
        as_state = lambda v: (torch.tensor(v, dtype=torch.float64)[:, None],)  # noqa: E731
        refused = memory.refuse(as_state(point), as_state(image), inside)
        return refused, memory.next_point(as_state(state), refused)[0][:, 0].tolist()

    # both samples: residual 0.008, then 0.004: the secant goes to 0.008 + 0.004 + 0.004
    assert turn([0.0, 0.0], [0.008, 0.008], [0.008, 0.008]) == (None, [0.008, 0.008])
    refused, points = turn([0.008, 0.008], [0.012, 0.012], [0.012, 0.012])
    assert refused is None and points == pytest.approx([0.016, 0.016])
    # there the first has a residual of 0.005 > 0.004 and goes on from 0.012, the second one of 0.001
    refused, points = turn([0.016, 0.016], [0.021, 0.017], [0.012, 0.017])
    assert refused.tolist() == [True, False] and points == pytest.approx([0.012, 0.017])
    # the memory of the first is that point alone: a secant through it and the next
    refused, points = turn([0.012, 0.017], [0.014, 0.0175], [0.014, 0.0175])
    assert refused is None and points[0] == pytest.approx(0.016)  # residuals 0.004 at 0.008 and 0.002 at 0.012
    # not a number, and images out of bounds, are refused
    refused, points = turn([0.016, 0.018], [float("nan"), 0.018], [0.014, 0.018], torch.tensor([False, False]))
    assert refused.tolist() == [True, True]


def test_only_small_residuals_that_fall_are_extrapolated():
    memory = Anderson(2, 1.0)
    yes = torch.ones(3, dtype=torch.bool)
    column = lambda *v: (torch.tensor(v, dtype=torch.float64)[:, None],)  # noqa: E731
    memory.refuse(column(0.0, 0.0, 0.0), column(0.02, 0.5, 0.02), yes)
    point = memory.next_point(column(0.02, 0.5, 0.02), None)
    # the first falls, the second is far away, the third rises
    images = column(0.03, 0.8, 0.045)
    memory.refuse(point, images, yes)
    assert memory.next_point(images, None)[0][:, 0].tolist() == pytest.approx([0.04, 0.8, 0.045])


def test_two_points_that_pull_to_and_fro_do_not_alternate_for_ever():
    """A point must have a smaller residual than all before it: at the last one it may have risen by plain steps."""
    memory = Anderson(1, 1.0)
    yes = torch.ones(1, dtype=torch.bool)
    column = lambda v: (torch.tensor([[v]], dtype=torch.float64),)  # noqa: E731
    refusals = []
    for residual in (0.02, 0.01, 0.005, 0.02, 0.01, 0.008, 0.006):
        refused = memory.refuse(column(0.0), column(residual), yes)
        refusals.append(None if refused is None else bool(refused))
        memory.next_point(column(residual), refused)
    # every other turn judges; after the rise in the fourth nothing was extrapolated; the last is not below 0.005
    assert refusals == [None, None, False, None, False, None, True]


def test_repelling_fixed_points_are_not_found():
    """`s <- s + s - s^3` moves away from 0 and towards 1 (slope -1 there, damped to 0): a start near 0 ends at 1."""

    class Double:
        parts, colors, execution = 1, ((0,),), Execution()

        def update(self, state, layers):
            (s,) = state
            return {0: s + 0.5 * (s - s**3)}

        def select(self, samples):
            return self

    start = (torch.tensor([[1e-3], [-1e-3]], dtype=torch.float64),)
    for window in (0, 1, 3, 5):
        out = relax(Double(), start, Relaxation(200, 1e-10, anderson_window=window))
        assert out.converged.all() and out.state[0][:, 0].tolist() == pytest.approx([1, -1])


def nets():
    yield "mlp", lambda **more: mlp(inputs=40, hidden=(24, 20), gain=1.0, **more)
    yield "conv", lambda **more: convnet((4, 6, 8), shape=(2, 16, 16), tied=False, **more)
    yield "loop", lambda **more: LoopNet((40,), (24, 20), gain=0.8, **more).double()


ACCELERATED = Relaxation(400, 1e-12, anderson_window=4)


@pytest.mark.parametrize("make", [make for _, make in nets()], ids=[name for name, _ in nets()])
@pytest.mark.parametrize("order", ["sequential", "synchronous"])
def test_the_same_fixed_points(make, order):
    torch.manual_seed(0)
    network = make(free=Relaxation(400, 1e-12, order=order))
    x, _ = images(8, network.input_shape)
    plain = network.free_equilibrium(x).result
    for more in ({}, {"anderson_damping": 0.7}, {"check_every": 7}, {"start": "feedforward"}):
        network.free = replace(ACCELERATED, order=order, **more)
        fast = network.free_equilibrium(x).result
        assert fast.converged.all() and (fast.residual < 1e-12).all()
        assert relative(fast.state, plain.state) < 1e-10
        # networks at first weights contract fast, which leaves little to gain; trained ones are benchmarks/eqprop.py's
        assert fast.iterations.double().mean() < 1.3 * plain.iterations.double().mean()


def test_samples_do_not_depend_on_the_batch():
    network = mlp(inputs=40, hidden=(24, 20), gain=1.0, free=Relaxation(150, 1e-8, anderson_window=3))
    x, _ = images(9, (40,))
    together = network.free_equilibrium(x)
    for part in ([0], [3, 8], [1, 2, 4, 5, 6, 7]):
        alone = network.free_equilibrium(x[part])
        assert torch.equal(alone.result.iterations, together.result.iterations[part])
        assert relative(alone.state, tuple(s[part] for s in together.state)) < 1e-10


TO_THE_END = Relaxation(300, 1e-13)


@pytest.mark.parametrize(
    "estimator",
    [
        Symmetric(0.05, relaxation=TO_THE_END),
        Cauchy(4, 0.1, relaxation=TO_THE_END),
        Cauchy(4, 0.1, arithmetic="native", relaxation=TO_THE_END),
        ComplexStep(1e-4, relaxation=Relaxation(300, 1e-15)),
        ExactResponse(relaxation=TO_THE_END),
        RecurrentBackprop(relaxation=TO_THE_END),
    ],
    ids=["symmetric", "split", "native", "complex step", "exact", "recurrent backprop"],
)
@pytest.mark.parametrize("make", [make for name, make in nets() if name != "loop"], ids=["mlp", "conv"])
def test_gradients(make, estimator, monkeypatch):
    """Free and nudged phases, real, split, complex and linear, accelerated or not: one gradient."""
    torch.manual_seed(0)
    network = make(free=Relaxation(400, 1e-12), estimator=estimator)
    x, y = images(4, network.input_shape)

    def gradient():
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        return [weight.grad.clone() for weight in network.parameters()]

    plain = gradient()
    network.free = ACCELERATED
    monkeypatch.setattr(estimator, "relaxation", replace(estimator.relaxation, anderson_window=3))
    assert relative(gradient(), plain) < 1e-7


def test_single_precision_low_precision_and_channels_last():
    plain = convnet((4, 6, 8), shape=(2, 16, 16), tied=False, dtype=torch.float32, free=Relaxation(200, 1e-5))
    x, y = images(6, plain.input_shape, dtype=torch.float32)
    wanted = plain.free_equilibrium(x).state
    for execution in (Execution(), Execution(free_precision="bfloat16"), Execution(channels_last=True)):
        network = convnet(
            (4, 6, 8),
            shape=(2, 16, 16),
            tied=False,
            dtype=torch.float32,
            free=Relaxation(200, 1e-5, anderson_window=3),
            execution=execution,
        )
        found = network.free_equilibrium(x)
        assert found.result.converged.all() and relative(found.state, wanted) < 1e-4
        if execution.channels_last:
            assert all(part.is_contiguous(memory_format=torch.channels_last) for part in found.state)
        F.cross_entropy(network(x), y).backward()


def test_policies_and_divergence_are_as_before():
    """A sample that diverges, one that is cut off, and one that is not a number stay in their places."""

    class Scalar:
        parts, colors, execution = 1, ((0,),), Execution()

        def __init__(self, factors):
            self.factors = factors

        def update(self, state, layers):
            return {0: self.factors[:, None] * state[0]}

        def select(self, samples):
            return Scalar(self.factors[samples])

    factors = torch.tensor([0.5, 3.0, float("nan"), -1.0], dtype=torch.float64)
    out = relax(
        Scalar(factors),
        (0.05 * torch.ones(4, 1).double(),),
        Relaxation(40, 1e-6, anderson_window=2),
        detect_period_two=True,
    )
    assert out.converged.tolist() == [True, False, False, False]
    assert out.diverged.tolist() == [False, True, True, False]
    assert out.period_two.tolist() == [False, False, False, True]
    assert int(out.iterations[0]) < 6 and torch.isfinite(out.state[0]).all()
    network = mlp(inputs=20, hidden=(8,), free=Relaxation(2, 1e-9, anderson_window=2), unconverged="raise")
    with pytest.raises(RuntimeError, match="all 3 samples to converge in 2 iterations"):
        network.free_equilibrium(images(3, (20,))[0])


def test_a_start_from_the_feedforward_pass():
    """Without backward directions it is the fixed point itself."""
    network = mlp(inputs=40, hidden=(24, 20), gain=1.0, free=Relaxation(100, 1e-12, start="feedforward"))
    x, _ = images(4, (40,))
    first = network.free_equilibrium(x).result
    with torch.no_grad():
        for name in ("l1-l2", "l2-out"):
            network.link(name).backward_weight.zero_()
    assert first.iterations.min() > 2 and network.free_equilibrium(x).result.iterations.tolist() == [1] * 4
    network.free = Relaxation(100, 1e-12)
    assert network.free_equilibrium(x).result.iterations.min() > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Relaxation(anderson_window=-1), "anderson_window=-1"),
        (lambda: Relaxation(anderson_window=3, anderson_damping=0.0), r"anderson_damping=0\.0"),
        (lambda: Relaxation(anderson_damping=0.5), "give a window, or leave out the damping"),
        (lambda: Relaxation(start="warm"), "start='warm'"),
        (lambda: Symmetric(relaxation=Relaxation(start="feedforward")), "give it to the network's free phase"),
        (lambda: ExactResponse(relaxation=Relaxation(start="feedforward")), "give it to the network's free phase"),
        (lambda: ComplexStep(relaxation=Relaxation(start="feedforward")), "give it to the network's free phase"),
        (lambda: Online(relaxation=Relaxation(anderson_window=3)), "averages over the plain iterations"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
