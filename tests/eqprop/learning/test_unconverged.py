"""Samples that have not converged: which policy holds, what it looks at, and what it refuses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from equilibria import images, mlp

from fklit.eqprop import EqPropTask
from fklit.eqprop.learning.estimators import (
    Cauchy,
    ComplexStep,
    CorrectedNudge,
    ExactResponse,
    OneSided,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.learning.nudges import CrossEntropyNudge
from fklit.eqprop.learning.online import Online
from fklit.eqprop.learning.unconverged import dropped_samples
from fklit.eqprop.relaxation.settings import Relaxation

FREE = Relaxation(max_iterations=400, tolerance=1e-12)
LINEAR = [ExactResponse, RecurrentBackprop, CorrectedNudge]
FINITE = [OneSided, Symmetric, Cauchy, ComplexStep, Online]


@pytest.mark.parametrize("kind", [*LINEAR, *FINITE])
def test_the_policy_follows_the_estimator_unless_it_is_given(kind):
    estimator = kind()
    assert estimator.policy(None) == ("drop" if kind in LINEAR else "keep")
    assert [estimator.policy(name) for name in ("keep", "drop", "raise")] == ["keep", "drop", "raise"]


def hidden_gradients(network, x, y, live=False):
    network.zero_grad()
    out = network(x, CrossEntropyNudge(y, 10) if live else None)
    F.cross_entropy(out, y, reduction="sum").backward()
    return [weight.grad.clone() for name, weight in network.named_parameters() if "readout" not in name]


def respond(network, x, y, live):
    """The free phase, and the response behind a backward pass."""
    equilibrium, record = network.free_equilibrium(x), []
    nudge = CrossEntropyNudge(y, 10) if live else None
    F.cross_entropy(network.read(network.attach(equilibrium, nudge=nudge, record=record)), y).backward()
    return equilibrium, record[0]


def cut_off(kind, unconverged, x, y, live=False):
    """A network of which about half of the samples end the linear iteration before it has converged."""
    estimator = kind(relaxation=Relaxation(max_iterations=400, tolerance=1e-9))
    network = mlp(inputs=50, hidden=(32, 24), gain=1.0, free=FREE, estimator=estimator, unconverged=unconverged)
    equilibrium, response = respond(network, x, y, live)
    assert equilibrium.result.converged.all() and response.converged.all()
    needed = response.results[0].iterations.view(-1, len(x)).amax(0)
    estimator.relaxation = replace(estimator.relaxation, max_iterations=int(needed.median()))
    return network


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("unconverged", [None, "drop", "keep"])
@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
def test_a_linear_iteration_that_has_not_converged_is_dropped(kind, unconverged, live):
    x, y = images(8, (50,))
    network = cut_off(kind, unconverged, x, y, live)
    equilibrium, response = respond(network, x, y, live)
    used = response.converged
    assert 0 < int(used.sum()) < len(x)
    policy = network.estimator.policy(unconverged)
    dropped = dropped_samples(equilibrium, response, network.estimator, policy)
    assert torch.equal(dropped, torch.zeros_like(used) if policy == "keep" else ~used)

    got = hidden_gradients(network, x, y, live)
    wanted = hidden_gradients(network, x[~dropped], y[~dropped], live)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_response_of_a_finite_nudge_is_not_looked_at():
    x, y = images(4, (50,))
    estimator = Symmetric(0.1, relaxation=Relaxation(max_iterations=2, tolerance=1e-12))
    network = mlp(inputs=50, hidden=(32, 24), free=FREE, estimator=estimator, unconverged="drop")
    equilibrium, response = respond(network, x, y, live=False)
    assert not response.converged.any()
    assert not dropped_samples(equilibrium, response, estimator, "drop").any()


def test_raise_names_the_response():
    x, y = images(4, (50,))
    estimator = ExactResponse(relaxation=Relaxation(max_iterations=2, tolerance=1e-9))
    network = mlp(inputs=50, hidden=(32, 24), free=FREE, estimator=estimator, unconverged="raise")
    with pytest.raises(RuntimeError, match="expected the response of all 4 samples to converge in 2 iterations, got 4"):
        F.cross_entropy(network(x), y).backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unconverged": "ignore"}, "expected unconverged 'keep', 'drop', 'raise' or None, got unconverged='ignore'"),
        (
            {"unconverged": "drop", "free": Relaxation(tolerance=0)},
            "expected free.tolerance above 0 .*unconverged='drop'",
        ),
        ({"unconverged": "raise", "free": Relaxation(tolerance=0)}, "expected free.tolerance .*unconverged='raise'"),
        (
            {"estimator": ExactResponse(), "free": Relaxation(tolerance=0)},
            "expected free.tolerance above 0 .*, which is what None means for ExactResponse",
        ),
        (
            {"estimator": RecurrentBackprop(relaxation=Relaxation(20, tolerance=0))},
            "expected estimator.relaxation.tolerance above 0 .*unconverged='keep' as in the published procedure",
        ),
    ],
)
def test_policies_that_leave_no_sample_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mlp(**settings)


def test_the_published_procedure_is_accepted():
    estimator = ExactResponse(relaxation=Relaxation(20, tolerance=0))
    network = mlp(inputs=50, free=Relaxation(150, tolerance=0), estimator=estimator, unconverged="keep")
    x, y = images(4, (50,))
    assert any(part.any() for part in hidden_gradients(network, x, y))
    network.unconverged = None
    with pytest.raises(ValueError, match=r"expected free\.tolerance above 0"):
        network(x)


def test_the_share_of_dropped_samples_is_logged():
    x, y = images(8, (50,))
    network = cut_off(ExactResponse, None, x, y)
    task, logged = EqPropTask(network), {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    task.log_dict = lambda *_, **__: None
    task.training_step({"x": x, "y": y, "index": torch.arange(8)}, 0).backward()
    task.on_after_backward()
    assert 0 < logged["train/dropped"] < 1
    assert logged["train/dropped"] == logged["train/nudge_unconverged"]
