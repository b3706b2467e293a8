"""Relaxation: fixed points, stops of single samples, cycles of two, divergence, orders and damping."""

import pytest
import torch
from equilibria import convnet, images, mlp, relative

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.network.connections import Dense
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.graph import Layer, color
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.iteration import iterate
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation


class Scalar:
    """`s <- factor s` for one number a sample."""

    parts = 1
    execution = Execution()
    colors = ((0,),)

    def __init__(self, factors):
        self.factors = factors

    def update(self, state, layers):
        return {0: self.factors[:, None] * state[0]}

    def select(self, samples):
        return Scalar(self.factors[samples])


def run(factors, **options):
    factors = torch.tensor(factors, dtype=torch.float64)
    return relax(
        Scalar(factors),
        (torch.ones(len(factors), 1, dtype=torch.float64),),
        Relaxation(**options),
        detect_period_two=True,
    )


@pytest.mark.parametrize("check_every", [1, 5, 1000])
def test_every_sample_stops_at_its_own_step(check_every):
    """`0.5^n` changes by `0.5^n` in step n: below 1e-3 first at n = 10; when is checked changes nothing."""
    out = run([0.5, 0.0, 0.9, -1.0, 3.0], max_iterations=40, tolerance=1e-3, check_every=check_every)
    assert out.iterations.tolist() == [10, 2, 40, 40, 9]  # 3^9 is beyond the bound
    assert out.converged.tolist() == [True, True, False, False, False]
    assert out.period_two.tolist() == [False, False, False, True, False]
    assert out.diverged.tolist() == [False, False, False, False, True]
    torch.testing.assert_close(
        out.state[0][:, 0], torch.tensor([0.5**10, 0.0, 0.9**40, 1.0, 3.0**8], dtype=torch.float64)
    )
    torch.testing.assert_close(
        out.residual, torch.tensor([0.5**10, 0.0, 0.9**39 * 0.1, 2.0, torch.inf], dtype=torch.float64)
    )
    assert out.counts() == {"samples": 5, "unconverged": 3, "period_two": 1, "diverged": 1}


def test_not_a_number_is_divergence_and_stays_in_its_sample():
    out = run([0.5, float("nan")], max_iterations=40)
    assert out.diverged.tolist() == [False, True] and torch.isfinite(out.state[0]).all()


def test_damping_ends_a_cycle_of_two():
    out = run([-1.0], max_iterations=100, rate=0.5)
    assert bool(out.converged) and abs(float(out.state[0])) < 1e-3


def test_tolerance_zero_runs_all_steps():
    out = run([0.0, 0.5], max_iterations=7, tolerance=0.0)
    assert out.iterations.tolist() == [7, 7] and not out.converged.any()


@pytest.mark.parametrize("make", [mlp, lambda **k: LoopNet((784,), (64, 64), gain=0.5).double(), None])
def test_orders_and_damping_have_one_fixed_point(make):
    network = convnet((4, 6, 8), shape=(3, 16, 16), tied=False) if make is None else make()
    x, _ = images(4, network.input_shape)
    field = NetworkField(network, tuple(part.detach() for part in network.drive(x)))
    start = network.zero_state(4)
    results = {
        name: relax(field, start, Relaxation(max_iterations=400, tolerance=1e-11, **options))
        for name, options in {
            "sequential": {},
            "synchronous": {"order": "synchronous"},
            "damped": {"order": "synchronous", "rate": 0.5},
            "damped sequential": {"rate": 0.7},
        }.items()
    }
    for result in results.values():
        assert result.converged.all()
        assert relative(result.state, results["sequential"].state) < 1e-9
    assert results["sequential"].iterations.max() < results["synchronous"].iterations.max()
    # it is a fixed point
    again = iterate(field, results["sequential"].state, Relaxation(order="synchronous"))
    assert relative(again, results["sequential"].state) < 1e-9


def test_two_strong_neurons_flip_synchronously_but_not_sequentially():
    """Mutual inhibition: both up, both down, both up; one after the other, one of them wins."""
    network = EquilibriumNetwork(
        (1,),
        [Layer("a", (1,)), Layer("b", (1,))],
        connections=[Dense("input", "a"), Dense("a", "b", tied=True)],
    ).double()
    with torch.no_grad():
        network.link("input-a").forward_weight.zero_()
        network.link("a-b").forward_weight.fill_(-4)
        for bias in network.biases.values():
            bias.fill_(2.5)
    field = NetworkField(network, tuple(part.detach() for part in network.drive(torch.zeros(1, 1).double())))
    synchronous = relax(field, network.zero_state(1), Relaxation(order="synchronous"), detect_period_two=True)
    assert synchronous.counts() == {"samples": 1, "unconverged": 1, "period_two": 1, "diverged": 0}
    assert relax(field, network.zero_state(1), Relaxation()).converged.all()


def test_warm_start():
    network = mlp(free=Relaxation(tolerance=1e-8))
    x, _ = images(4, (784,))
    cold = network.free_equilibrium(x)
    warm = network.free_equilibrium(x, start=cold.state)
    assert warm.result.iterations.max() <= 2 < cold.result.iterations.max()


def test_samples_do_not_depend_on_the_batch():
    network = convnet((4, 6, 8), shape=(3, 16, 16), tied=False, free=Relaxation(tolerance=1e-5))
    x, _ = images(9, (3, 16, 16))
    together = network.free_equilibrium(x)
    for part in ([0], [3, 8], [1, 2, 4, 5, 6, 7]):
        alone = network.free_equilibrium(x[part])
        assert torch.equal(alone.result.iterations, together.result.iterations[part])
        assert relative(alone.state, tuple(s[part] for s in together.state)) < 1e-12


def test_colors():
    assert color(4, [(0, 1), (1, 2), (2, 3)]) == ((0, 2), (1, 3))
    assert color(3, [(0, 1), (1, 2), (2, 0)]) == ((0,), (1,), (2,))
    assert color(2, [(0, 0), (0, 1)]) == ((0,), (1,))
    assert mlp(inputs=4, hidden=(3, 3)).colors == ((0, 2), (1,))


@pytest.mark.parametrize("policy", ["keep", "raise", "drop"])
def test_unconverged_samples(policy):
    network = mlp(inputs=20, hidden=(8,), free=Relaxation(max_iterations=2, tolerance=1e-9), unconverged=policy)
    x, _ = images(3, (20,))
    if policy == "raise":
        with pytest.raises(RuntimeError, match="all 3 samples to converge in 2 iterations, got 3 that did not"):
            network.free_equilibrium(x)
        return
    network(x).sum().backward()
    trained = any(link.forward_weight.grad.abs().sum() > 0 for link in network.links.values())
    assert trained == (policy == "keep")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"rate": 1.5}, "rate=1.5"),
        ({"tolerance": -1.0}, "tolerance=-1.0"),
        ({"order": "random"}, "order='random'"),
        ({"check_every": 0}, "check_every=0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Relaxation(**options)


def test_a_start_of_the_wrong_shape():
    network = mlp(inputs=20, hidden=(8,))
    x, _ = images(3, (20,))
    with pytest.raises(ValueError, match=r"expected a start of shapes \[\(3, 8\), \(3, 10\)\], got \[\(2, 8\), "):
        network.free_equilibrium(x, start=network.zero_state(2))


def test_an_empty_batch():
    network = mlp(inputs=20, hidden=(8,))
    equilibrium = network.free_equilibrium(torch.zeros(0, 20))
    assert equilibrium.state[0].shape == (0, 8) and equilibrium.result.counts()["samples"] == 0


def test_limits_are_exact():
    """Changes equal to the tolerance are not below it, and activities equal to the bound do not exceed it."""
    assert run([0.5], tolerance=2.0**-10).iterations.tolist() == [11]
    out = run([10.0], bound=1e4)
    assert out.iterations.tolist() == [5] and out.diverged.all() and float(out.state[0]) == 1e4


def test_cycles_of_two_may_drift_by_a_hundredth_of_their_change_or_by_the_tolerance():
    out = run([-0.995, -0.98], max_iterations=5, tolerance=1e-9)
    assert out.period_two.tolist() == [True, False]
    start = (torch.full((1, 1), 0.025, dtype=torch.float64),)
    for tolerance, found in ((1e-3, True), (5e-4, False)):  # it drifts by 7.8e-4 and changes by 0.049
        relaxation = Relaxation(max_iterations=1, tolerance=tolerance)
        out = relax(Scalar(torch.tensor([-0.984])), start, relaxation, detect_period_two=True)
        assert out.period_two.tolist() == [found]
    assert not relax(
        Scalar(torch.tensor([-1.0])), start, Relaxation(max_iterations=4)
    ).period_two.any()  # not asked for


def test_damping_moves_by_the_rate_towards_the_new_value():
    start = (torch.ones(1, 1, dtype=torch.float64),)
    after = iterate(Scalar(torch.tensor([0.2])), start, Relaxation(rate=0.25))
    torch.testing.assert_close(after[0], torch.full((1, 1), 0.8, dtype=torch.float64))
    out = run([0.2], rate=0.25, max_iterations=1)
    assert float(out.residual) == pytest.approx(0.8)  # as if undamped


class Spiral:
    """`s <- factor s` for a split complex number a sample."""

    parts = 2
    execution = Execution()
    colors = ((0,),)

    def __init__(self, factors):
        self.factors = factors

    def update(self, state, layers):
        real, imaginary = state[0].chunk(2)
        a, b = self.factors.real[:, None], self.factors.imag[:, None]
        return {0: torch.cat([a * real - b * imaginary, a * imaginary + b * real])}

    def select(self, samples):
        return Spiral(self.factors[samples])


@pytest.mark.parametrize("check_every", [1, 4])
def test_split_samples_stop_by_the_modulus_of_their_change(check_every):
    factors = torch.tensor([0.5j, 0.9, 2j, 0.25], dtype=torch.complex128)
    start = (torch.cat([torch.ones(4, 1), torch.zeros(4, 1)]).double(),)
    out = relax(Spiral(factors), start, Relaxation(60, 1e-3, bound=100.0, check_every=check_every))
    change = (1 - factors).abs()
    for i, factor in enumerate(factors):
        steps = next((n for n in range(1, 61) if change[i] * factor.abs() ** (n - 1) < 1e-3), 60)
        if i == 2:
            assert int(out.iterations[i]) == 7 and out.diverged[i]  # 2^7 is beyond the bound
            steps = 6
        else:
            assert int(out.iterations[i]) == steps and bool(out.converged[i]) == (steps < 60)
        reached = torch.complex(out.state[0][i, 0], out.state[0][4 + i, 0])
        torch.testing.assert_close(reached, factor**steps)


@pytest.mark.parametrize("split", [True, False])
def test_the_imaginary_residual_ignores_real_parts(split):
    """A real part that keeps changing does not keep a sample from converging if only the imaginary part counts."""

    class Drift:
        parts, execution = 2 if split else 1, Execution()
        colors = ((0,),)

        def update(self, state, layers):
            if split:
                return {0: torch.cat([state[0][:1] + 1, 0.5 * state[0][1:]])}
            return {0: torch.complex(state[0].real + 1, 0.5 * state[0].imag)}

        def select(self, samples):
            return self

    one = torch.ones(1, 1, dtype=torch.float64)
    start = (torch.cat([one, one]) if split else torch.complex(one, one),)
    assert not relax(Drift(), start, Relaxation(30, 1e-3)).converged.any()
    out = relax(Drift(), start, Relaxation(30, 1e-3), imaginary=True)
    assert out.converged.all() and out.iterations.tolist() == [10]
    assert float(out.residual) == pytest.approx(2.0**-10)


def test_accepted_limits():
    Relaxation(max_iterations=1, tolerance=0.0, rate=1.0, bound=1e-9, check_every=1)
    with pytest.raises(ValueError, match=r"bound=0\.0"):
        Relaxation(bound=0.0)


def test_the_policy_raise_accepts_samples_that_converge():
    network = mlp(inputs=20, hidden=(8,), unconverged="raise")
    assert network.free_equilibrium(images(3, (20,))[0]).result.converged.all()


@pytest.mark.parametrize(
    ("factors", "check_every", "rows"),
    [
        ([0.5, 0.0, 0.0, 0.9], None, [4] * 2 + [2] * 8 + [1] * 30),  # on a CPU every iteration is checked
        ([0.5, 0.0, 0.0, 0.9], 5, [4] * 5 + [2] * 5 + [1] * 30),
        ([0.0, 0.9, 0.9, 0.9], None, [4] * 40),
        ([0.0, 0.0], None, [2] * 2),
    ],
)
def test_stopped_samples_leave_when_half_of_the_batch_has_stopped(factors, check_every, rows):
    seen = []

    class Counting(Scalar):
        def update(self, state, layers):
            seen.append(len(state[0]))
            return super().update(state, layers)

        def select(self, samples):
            return Counting(self.factors[samples])

    start = (torch.ones(len(factors), 1, dtype=torch.float64),)
    relax(Counting(torch.tensor(factors)), start, Relaxation(40, 1e-3, check_every=check_every))
    assert seen == rows
