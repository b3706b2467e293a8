"""The backward pass: exact for tied weights, a local rule for each weight, and an ordinary module for torch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from equilibria import TIGHT, convnet, cosine, free_equilibrium, images, mlp, relative

from fklit.eqprop.analysis.references import unrolled
from fklit.eqprop.learning.centered import Centered
from fklit.eqprop.learning.estimators import (
    Cauchy,
    ComplexStep,
    CorrectedNudge,
    ExactResponse,
    OneSided,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.learning.nudges import CrossEntropyNudge, MSENudge
from fklit.eqprop.learning.online import Online
from fklit.eqprop.relaxation.settings import Relaxation

NUDGED = Relaxation(max_iterations=200, tolerance=1e-13)


def gradients(network):
    return tuple(weight.grad.clone() for weight in network.parameters())


def backward(network, x, y, *, live=False, scale=1.0):
    network.zero_grad()
    nudge = CrossEntropyNudge(y, 10) if live else None
    (scale * F.cross_entropy(network(x, nudge), y)).backward()
    return gradients(network)


def through_time(network, x, y, iterations=60):
    network.zero_grad()
    F.cross_entropy(network.read(unrolled(network, x, iterations=iterations)), y).backward()
    return gradients(network)


def tied(**more):
    return mlp(tied=True, inputs=50, hidden=(32, 24), **more)


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
@pytest.mark.parametrize(
    ("estimator", "limit"),
    [
        (OneSided(1e-4, relaxation=NUDGED), 1e-3),
        (Symmetric(0.05, relaxation=NUDGED), 5e-3),
        (Centered(0.05, relaxation=NUDGED), 5e-3),
        (Cauchy(4, 0.05, relaxation=NUDGED), 1e-5),
        (Cauchy(6, 0.05, relaxation=NUDGED), 1e-7),
        (ComplexStep(1e-5, relaxation=Relaxation(max_iterations=200, tolerance=1e-16)), 1e-8),
        (ExactResponse(relaxation=TIGHT), 1e-9),
        (RecurrentBackprop(relaxation=TIGHT), 1e-9),
        (CorrectedNudge(0.05, relaxation=NUDGED), 5e-3),
        (Online(4, 0.05, iterations_per_phase=60), 1e-3),
    ],
    ids=lambda e: type(e).__name__ if not isinstance(e, float) else "",
)
def test_tied_gradients_equal_backprop_through_time(estimator, limit, live):
    network = tied(estimator=estimator)
    x, y = images(8, (50,))
    wanted = through_time(network, x, y)
    assert relative(backward(network, x, y, live=live), wanted) < limit


def test_recurrent_backprop_is_exact_without_symmetry_and_ep_is_not():
    x, y = images(8, (50,))
    network = mlp(angle=90.0, inputs=50, hidden=(32, 24), estimator=RecurrentBackprop(relaxation=TIGHT))
    wanted = through_time(network, x, y)
    assert relative(backward(network, x, y), wanted) < 1e-9
    network.estimator = ExactResponse(relaxation=TIGHT)
    assert cosine(backward(network, x, y)[:2], wanted[:2]) < 0.9


def test_conv_net_and_untied_kernels():
    network = convnet((4, 6, 8), shape=(3, 16, 16), tied=False, estimator=RecurrentBackprop(relaxation=TIGHT))
    x, y = images(4, (3, 16, 16))
    assert relative(backward(network, x, y), through_time(network, x, y)) < 1e-9
    network = convnet((4, 6, 8), shape=(3, 16, 16), tied=True, estimator=Cauchy(4, 0.2, relaxation=NUDGED))
    assert relative(backward(network, x, y), through_time(network, x, y)) < 1e-5


def test_the_rule_is_local():
    """Each dense weight gets the sum over samples of error times activity; backward weights get their own."""
    network = mlp(angle=90.0, inputs=50, hidden=(32, 24), estimator=ExactResponse(relaxation=TIGHT))
    x, y = images(8, (50,))
    backward(network, x, y)
    equilibrium, _, force = free_equilibrium(network, 8)
    error = network.estimator.respond(network, equilibrium, tuple(part / 8 for part in force)).error
    s = equilibrium.state
    link = network.link("l1-l2")
    torch.testing.assert_close(link.forward_weight.grad, error[1].T @ s[0], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(link.backward_weight.grad, error[0].T @ s[1], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(network.link("input-l1").forward_weight.grad, error[0].T @ x, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(network.biases["l2"].grad, error[1].sum(0), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
def test_the_nudge_does_not_depend_on_the_scale_of_the_loss(live):
    """As under gradient scaling, and for any reduction: the gradient just scales."""
    network = tied(estimator=Symmetric(0.3))
    x, y = images(8, (50,))
    once, often = backward(network, x, y, live=live), backward(network, x, y, live=live, scale=65536.0)
    assert relative(often, tuple(65536.0 * g for g in once)) < 1e-12


def test_accumulation_equals_one_batch():
    network = tied()
    x, y = images(8, (50,))
    wanted = backward(network, x, y)
    network.zero_grad()
    for part in (slice(0, 3), slice(3, 8)):
        (F.cross_entropy(network(x[part]), y[part], reduction="sum") / 8).backward()
    assert relative(gradients(network), wanted) < 1e-10


def test_mean_squared_error_without_a_readout():
    network = tied(num_classes=None, estimator=Cauchy(4, 0.05, relaxation=NUDGED))
    x, y = images(8, (50,))
    target = F.one_hot(y, 10).double()

    def loss(out):
        return 0.5 * (out - target).square().sum(1).mean()

    loss(network.read(unrolled(network, x, iterations=60))).backward()
    wanted = gradients(network)
    for nudge in (None, MSENudge(target)):
        network.zero_grad()
        loss(network(x, nudge)).backward()
        assert relative(gradients(network), wanted) < 1e-4


def test_losses_on_hidden_activities_and_gradients_of_the_input():
    network = tied(estimator=Cauchy(4, 0.1, relaxation=NUDGED))
    x, _ = images(4, (50,))
    found = []
    for states in (
        lambda x: network.attach(network.free_equilibrium(x), x=x),
        lambda x: unrolled(network, x, iterations=60),
    ):
        x = x.detach().requires_grad_()
        state = states(x)
        (state[0].square().sum() + state[2].sin().sum()).backward()
        found.append(x.grad)
    assert relative(found[:1], found[1:]) < 1e-4


def test_frozen_weights_get_nothing_and_inference_keeps_no_graph():
    network = tied()
    x, y = images(2, (50,))
    network.link("input-l1").requires_grad_(False)
    F.cross_entropy(network(x), y).backward()
    assert network.link("input-l1").forward_weight.grad is None
    assert network.link("l1-l2").forward_weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not network(x).requires_grad


def test_memory_does_not_grow_with_the_iterations():
    """What autograd keeps for the backward pass is the same after 5 iterations and after 80."""

    def kept(iterations, through_time=False):
        network = tied(free=Relaxation(max_iterations=iterations, tolerance=0.0))
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x, y = images(8, (50,))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = network.read(unrolled(network, x, iterations=iterations)) if through_time else network(x)
            F.cross_entropy(out, y)
        return total

    assert kept(5) == kept(80)
    assert kept(80, through_time=True) > 10 * kept(5, through_time=True)


def test_clipping():
    network = tied()
    x, y = images(8, (50,))
    wanted = backward(network, x, y)
    norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-3))
    assert relative(gradients(network), tuple(g * 1e-3 / norm for g in wanted)) < 1e-3


def test_an_optimizer_learns():
    network = tied(free=Relaxation(tolerance=1e-3), gain=1.0).float()
    x, y = images(4, (50,), dtype=torch.float32)[0], torch.arange(4)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_record_holds_the_nudged_phases():
    network = tied(estimator=Cauchy(4, 0.2))
    x, y = images(3, (50,))
    record = []
    state = network.attach(network.free_equilibrium(x), record=record)
    F.cross_entropy(network.read(state), y).backward()
    (response,) = record
    assert [len(result.iterations) for result in response.results] == [6, 3]  # two real phases, one complex one
    assert [tuple(part.shape) for part in response.error] == [(3, 32), (3, 24), (3, 10)]


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
def test_autocast_changes_nothing(live):
    """Dynamics and readout stay in single precision: the small differences between states must survive."""
    network = tied().float()
    x, y = images(8, (50,), dtype=torch.float32)
    wanted = backward(network, x, y, live=live)
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(network(x, CrossEntropyNudge(y, 10) if live else None), y)
    loss.backward()
    assert relative(gradients(network), wanted) < 1e-6


def test_weights_of_half_precision_are_computed_with_in_single():
    network, twin = tied().bfloat16(), tied()
    twin.load_state_dict({name: weight.float() for name, weight in network.state_dict().items()})
    twin.float()
    x, y = images(8, (50,), dtype=torch.bfloat16)
    assert network(x).dtype == torch.float32
    for live in (False, True):
        got, wanted = backward(network, x, y, live=live), backward(twin, x.float(), y, live=live)
        assert all(g.dtype == torch.bfloat16 for g in got)
        assert relative([g.float() for g in got], wanted) < 1e-2


def test_a_sample_that_is_not_a_number_spoils_no_gradient():
    network = tied()
    x, y = images(5, (50,))
    y[2] = int(network(x)[2].argmax())
    bad = x.clone()
    bad[2, 7] = float("nan")
    network.zero_grad()
    equilibrium = network.free_equilibrium(bad)
    assert equilibrium.result.diverged.tolist() == [False, False, True, False, False]
    others = torch.tensor([0, 1, 3, 4])
    F.cross_entropy(network.read(network.attach(equilibrium)), y, reduction="none")[others].sum().backward()
    got = gradients(network)
    network.zero_grad()
    F.cross_entropy(network(x[others]), y[others], reduction="sum").backward()
    assert relative(got, gradients(network)) < 1e-9


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    network = tied()
    x, y = images(4, (50,))
    wanted = backward(network, x, y)
    network.zero_grad()
    x.requires_grad_()
    F.cross_entropy(torch.utils.checkpoint.checkpoint(network, x, use_reentrant=reentrant), y).backward()
    assert relative(gradients(network), wanted) < 1e-12


@pytest.mark.parametrize("unconverged", ["keep", "drop"])
@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
def test_samples_whose_free_phase_diverged_or_is_dropped_have_no_gradient(unconverged, live):
    x, y = images(6, (50,))
    x = x * torch.tensor([0.1, 40.0, 0.1, 1.0, 40.0, 1.0])[:, None]
    network = tied(gain=1.0, unconverged=unconverged, estimator=Symmetric(0.1, relaxation=NUDGED))
    network.free = Relaxation(max_iterations=200, tolerance=1e-4, bound=0.99999)  # above which some saturate
    needed = network.free_equilibrium(x).result
    network.free = replace(network.free, max_iterations=int(needed.iterations[needed.converged].median()))
    result = network.free_equilibrium(x).result
    used = result.converged if unconverged == "drop" else ~result.diverged
    assert result.diverged.any() and not torch.equal(result.converged, ~result.diverged) and used.any()

    def gradient(rows):
        network.zero_grad()
        out = network(x[rows], CrossEntropyNudge(y[rows], 10) if live else None)
        F.cross_entropy(out, y[rows], reduction="sum").backward()
        return [weight.grad.clone() for name, weight in network.named_parameters() if "readout" not in name]

    assert relative(gradient(torch.ones(6, dtype=torch.bool)), gradient(used)) < 1e-12


def test_integer_cotangent_of_zero():
    """A sample without a gradient is not nudged, and has none."""
    network = tied()
    x, _ = images(3, (50,))
    out = network(x)
    (out * torch.tensor([1.0, 0.0, 1.0])[:, None]).square().sum().backward()
    got = gradients(network)
    network.zero_grad()
    network(x[[0, 2]]).square().sum().backward()
    assert relative(got, gradients(network)) < 1e-12
