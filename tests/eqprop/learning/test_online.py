"""The continuous-time estimate: what iterations that are left out change is small."""

import math

import pytest
import torch
from equilibria import free_equilibrium, mlp, relative

from fklit.eqprop.learning.online import Online
from fklit.eqprop.relaxation.settings import Relaxation

COUNT = 12


@pytest.fixture(scope="module")
def network():
    return mlp()


@pytest.fixture(scope="module")
def free(network):
    equilibrium, nudge, _ = free_equilibrium(network, COUNT)
    return equilibrium, nudge


def iterations(response):
    return sum(result.iterations for result in response.results)


@pytest.mark.parametrize("from_zero", [False, True], ids=["from free", "from zero"])
@pytest.mark.parametrize("periods", [1, 2, 5])
def test_samples_that_have_converged_wait(network, free, periods, from_zero):
    equilibrium, nudge = free
    settings = {"iterations_per_phase": 80, "num_periods": periods, "from_zero": from_zero}
    wanted = Online(4, 0.3, **settings).respond(network, equilibrium, nudge)
    got = Online(4, 0.3, tolerance=1e-10, **settings).respond(network, equilibrium, nudge)
    assert iterations(wanted).eq(320 * periods).all()
    assert (iterations(got) < 320 * min(periods, 2) * 0.6).all()
    assert got.converged.all() and not wanted.converged.any()
    assert relative(got.error, wanted.error) < 1e-8
    assert relative(got.gradient_state, wanted.gradient_state) < 1e-9


def test_periods_that_repeat_are_not_iterated(network, free):
    """No sample converges in two iterations, but after some periods the oscillation repeats."""
    equilibrium, nudge = free
    settings = {"iterations_per_phase": 2, "num_periods": 60, "relaxation": Relaxation(rate=0.2)}
    wanted = Online(4, 0.3, **settings).respond(network, equilibrium, nudge)
    got = Online(4, 0.3, tolerance=1e-11, **settings).respond(network, equilibrium, nudge)
    assert not got.converged.any() and iterations(wanted).eq(480).all()
    counts = iterations(got)
    assert (counts < 240).all() and len(counts.unique()) > 1 and len(got.results) == int(counts.max()) // 2
    assert (counts % 8 != 0).any()  # within a period, too
    assert relative(got.error, wanted.error) < 1e-8
    assert relative(got.gradient_state, wanted.gradient_state) < 1e-9
    # a sample that is done repeats its last period in the results
    first = int(counts.argmin())
    assert got.results[-1].iterations[first] == 0
    rows = [first, first + COUNT]
    for last, full in zip(got.results[-1].state, wanted.results[len(got.results) - 1].state, strict=True):
        torch.testing.assert_close(last[rows], full[rows], rtol=0, atol=1e-9)


def test_a_sample_does_not_depend_on_when_others_are_done(network, free):
    equilibrium, nudge = free
    online = Online(4, 0.3, iterations_per_phase=3, num_periods=40, tolerance=1e-9)
    together = online.respond(network, equilibrium, nudge)
    for sample in range(0, COUNT, 5):
        alone = network.free_equilibrium(equilibrium.x[sample : sample + 1])
        found = online.respond(network, alone, nudge.select(torch.tensor([sample])))
        assert relative(found.error, tuple(part[sample : sample + 1] for part in together.error)) < 1e-10
        assert int(iterations(found)) == int(iterations(together)[sample])


def test_a_sample_that_diverges_has_no_error(network, free):
    equilibrium, nudge = free
    settings = {"iterations_per_phase": 30, "num_periods": 4}
    results = Online(4, 0.5, **settings).respond(network, *free).results
    largest = torch.stack([part.flatten(1).abs().amax(1) for result in results for part in result.state]).amax(0)
    bound = float(largest.view(2, COUNT).amax(0).median()) * 1.0001
    settings["relaxation"] = Relaxation(bound=bound)
    wanted = Online(4, 0.5, **settings).respond(network, equilibrium, nudge)
    got = Online(4, 0.5, tolerance=1e-10, **settings).respond(network, equilibrium, nudge)
    assert 0 < int(wanted.diverged.sum()) < COUNT
    assert torch.equal(got.diverged, wanted.diverged)
    assert relative(got.error, wanted.error) < 1e-8
    assert all((part[got.diverged] == 0).all() for part in got.error)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_small_batches_and_input_that_is_no_number(network, count, value):
    x = torch.full((count, *network.input_shape), value, dtype=torch.float64)
    equilibrium = network.free_equilibrium(x)
    force = tuple(torch.ones_like(part) for part in equilibrium.state)
    for order in ("sequential", "synchronous"):
        online = Online(4, 0.1, num_periods=3, tolerance=1e-9, relaxation=Relaxation(order=order))
        response = online.respond(network, equilibrium, force)
        assert all(torch.isfinite(part).all() and len(part) == count for part in response.error)
        assert response.diverged.eq(math.isnan(value)).all()


def test_the_tolerance_is_not_negative():
    with pytest.raises(ValueError, match="got tolerance=-1"):
        Online(tolerance=-1.0)
