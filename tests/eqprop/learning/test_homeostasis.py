"""The homeostatic loss is half the squared norm of J - J^T, in each of its forms, and so is its gradient."""

import pytest
import torch
from equilibria import convnet, images, mlp

from fklit.eqprop.analysis.references import flatten_state, recurrent_jacobian
from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.homeostasis import Homeostasis, closed_form, draw_probes, squared, two_term
from fklit.eqprop.network.connections import Dense
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.state import repeat_rows
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.settings import Relaxation


def exact(network, state):
    """Mean over samples of 1/2 ||J - J^T||^2; -1 on the diagonal of J drops out."""
    jacobian = recurrent_jacobian(network, state)
    return 0.5 * (jacobian - jacobian.mT).square().sum((1, 2)).mean()


def probes(network, samples, count):
    return tuple(p.double() for p in draw_probes(network, range(samples), probes=count))


@pytest.mark.parametrize("form", [two_term, squared])
def test_mean_over_probes_of_an_mlp(form):
    network = mlp(inputs=20, gain=1.0)
    state = network.free_equilibrium(images(1, (20,))[0]).state
    directions = probes(network, 1, 4000)
    values = form(LinearizedRecurrence(network, repeat_rows(state, 4000)), directions)
    assert float(values.mean()) == pytest.approx(float(exact(network, state)), rel=0.05)


@pytest.mark.parametrize("form", [two_term, squared])
def test_mean_over_probes_of_a_conv_net(form):
    """Softmax pooling makes the Jacobian depend on the state, and the loss more than the kernels' difference."""
    network = convnet((3, 4), tied=False, shape=(2, 8, 8))
    assert network.num_neurons < 1000
    state = network.free_equilibrium(images(1, (2, 8, 8))[0]).state
    values = form(LinearizedRecurrence(network, repeat_rows(state, 4000)), probes(network, 1, 4000))
    assert float(values.mean()) == pytest.approx(float(exact(network, state)), rel=0.05)


def test_a_tied_conv_net_has_no_loss():
    network = convnet((3, 4), tied=True, shape=(2, 8, 8))
    state = network.free_equilibrium(images(2, (2, 8, 8))[0]).state
    assert float(exact(network, state)) < 1e-24
    assert float(squared(LinearizedRecurrence(network, state), probes(network, 2, 1)).detach().max()) < 1e-24


@pytest.mark.parametrize("kind", ["mlp", "loop", "mixed"])
def test_closed_form(kind):
    torch.manual_seed(1)
    if kind == "mlp":
        network = mlp(inputs=20, hidden=(12, 9))
    elif kind == "loop":
        network = LoopNet((20,), (12, 9), num_outputs=5).double()
    else:
        network = EquilibriumNetwork(
            (20,),
            [Layer("a", (7,)), Layer("b", (5,))],
            connections=[
                Dense("input", "a"),
                Dense("a", "b", reciprocal=False),
                Dense("b", "a", reciprocal=False),
                Dense("a", "a", reciprocal=False),
            ],
        ).double()
    state = network.zero_state(1)
    assert float(closed_form(network).detach()) == pytest.approx(float(exact(network, state)), rel=1e-12)


def test_gradient_noise_near_symmetry():
    """At ||A||/||S|| = 0.01 the gradient of the squared form is at least 20 times less noisy."""
    size = 40
    torch.manual_seed(0)
    network = EquilibriumNetwork(
        (1,),
        [Layer("a", (size,), bias=False)],
        connections=[Dense("input", "a"), Dense("a", "a", reciprocal=False)],
    ).double()
    weight = network.link("a-a").forward_weight
    random = torch.randn(size, size, dtype=torch.float64) / size**0.5
    symmetric, skew = (random + random.T) / 2, (random - random.T) / 2
    with torch.no_grad():  # J = W - 1
        jacobian = symmetric - torch.eye(size)
        weight.copy_(symmetric + skew * (0.01 * jacobian.norm() / skew.norm()))
    (wanted,) = torch.autograd.grad(closed_form(network), weight)
    errors = {}
    for form in (two_term, squared):
        total = 0.0
        for probe in probes(network, 1, 200)[0].split(1):
            linear = LinearizedRecurrence(network, network.zero_state(1), differentiable=True)
            (got,) = torch.autograd.grad(form(linear, (probe,)).sum(), weight)
            total += float((got - wanted).square().sum()) / 200
        errors[form.__name__] = total**0.5
    assert errors["two_term"] > 20 * errors["squared"]


def test_the_loss_is_differentiated_with_respect_to_weights_only():
    network = mlp(inputs=20, hidden=(12, 9))
    equilibrium = network.free_equilibrium(images(3, (20,))[0])
    gradients = {}
    for form in ("two_term", "squared", "closed"):
        loss = Homeostasis(form, probes=2000, normalize=False)(network, equilibrium, sample_ids=range(3))
        weights = dict(network.named_parameters())
        found = torch.autograd.grad(loss, weights.values(), allow_unused=True)
        gradients[form] = {name: g for name, g in zip(weights, found, strict=True) if g is not None}
        assert set(gradients[form]) == {
            f"links.{link}.{way}_weight" for link in ("l1-l2", "l2-out") for way in ("forward", "backward")
        }
    for name, wanted in gradients["closed"].items():
        for form in ("two_term", "squared"):
            assert float((gradients[form][name] - wanted).norm() / wanted.norm()) < 0.1


def test_terms_add_up_and_can_be_switched_off():
    network = mlp(inputs=20, hidden=(12, 9))
    equilibrium = network.free_equilibrium(images(3, (20,))[0])

    def value(**terms):
        return float(Homeostasis(**terms)(network, equilibrium, sample_ids=[4, 9, 2], step=3).detach())

    first, second = value(reconstruction=False), value(sensitivity=False)
    assert first > 0 > second  # v^T J J v is near |v|^2, as J is near -1
    assert first + second == pytest.approx(value(), rel=1e-9)
    assert value(normalize=False) == pytest.approx(value() * network.num_neurons, rel=1e-9)


def test_probes_belong_to_the_sample():
    network = mlp(inputs=20, hidden=(12, 9))
    together = draw_probes(network, [3, 8, 5], probes=2, step=7)
    alone = draw_probes(network, [8], probes=2, step=7)
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.view(2, 3, -1)[:, 1], b)
    assert not torch.equal(alone[0], draw_probes(network, [8], probes=2, step=8)[0])


def test_diverged_samples_add_nothing():
    """As in the loss of the task, the mean is over the whole batch, so that processes' means add up."""
    network = mlp(inputs=20, hidden=(12, 9), free=Relaxation(bound=0.9))
    x = images(4, (20,))[0] * torch.tensor([[0.0], [40.0], [0.0], [40.0]])
    good = (~network.free_equilibrium(x).result.diverged).nonzero().squeeze(1)
    assert 0 < len(good) < 4

    def loss(rows):
        part = network.free_equilibrium(x[rows])
        return float(Homeostasis("squared")(network, part, sample_ids=rows.tolist()).detach())

    assert loss(torch.arange(4)) == pytest.approx(loss(good) * len(good) / 4)


def test_warm_up():
    loss = Homeostasis(weight=4.0, warmup_steps=8)
    assert [loss.weight_at(step) for step in (0, 2, 8, 100)] == [0.0, 1.0, 4.0, 4.0]
    assert Homeostasis(weight=4.0).weight_at(0) == 4.0


def test_bad_arguments():
    with pytest.raises(ValueError, match="form='three'"):
        Homeostasis("three")
    with pytest.raises(ValueError, match="expected at least one of sensitivity and reconstruction"):
        Homeostasis(sensitivity=False, reconstruction=False)
    with pytest.raises(ValueError, match="which has no separate terms"):
        Homeostasis("squared", sensitivity=False)
    with pytest.raises(ValueError, match="probes=0"):
        Homeostasis(probes=0)
    network = convnet((3, 4), shape=(2, 8, 8))
    equilibrium = network.free_equilibrium(images(2, (2, 8, 8))[0])
    with pytest.raises(ValueError, match="got conv1-out, which is not dense"):
        Homeostasis("closed")(network, equilibrium, sample_ids=[0, 1])
    with pytest.raises(ValueError, match="for each of 2 samples, got 1"):
        Homeostasis()(network, equilibrium, sample_ids=[0])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_each_form_is_its_formula_for_every_probe(kind):
    """Against dense Jacobians: `|J v|^2 - v^T J J v` and `1/2 |(J - J^T) v|^2`, and the loss is their mean."""
    network = mlp(inputs=20, hidden=(12, 9)) if kind == "mlp" else convnet((3, 4), tied=False, shape=(2, 8, 8))
    equilibrium = network.free_equilibrium(images(3, network.input_shape)[0])
    size = network.num_neurons
    jacobian = recurrent_jacobian(network, equilibrium.state) - torch.eye(size, dtype=torch.float64)
    drawn = draw_probes(network, [7, 2, 5], probes=2, seed=4, step=9)
    v = flatten_state(tuple(part.double() for part in drawn))[..., None]
    j = torch.cat([jacobian] * 2)
    sensitivity = (j @ v).square().sum((1, 2))
    reconstruction = (v.mT @ j @ j @ v).flatten()
    skew = 0.5 * ((j - j.mT) @ v).square().sum((1, 2))
    linear = LinearizedRecurrence(network, equilibrium.state)
    probe = tuple(part.double() for part in drawn)
    torch.testing.assert_close(two_term(linear, probe).detach(), sensitivity - reconstruction)
    torch.testing.assert_close(squared(linear, probe).detach(), skew)
    for settings, values in (
        ({}, sensitivity - reconstruction),
        ({"reconstruction": False}, sensitivity),
        ({"sensitivity": False}, -reconstruction),
        ({"form": "squared"}, skew),
    ):
        for normalize, scale in ((True, 1 / size), (False, 1.0)):
            loss = Homeostasis(probes=2, seed=4, normalize=normalize, **settings)
            got = loss(network, equilibrium, sample_ids=[7, 2, 5], step=9)
            assert float(got.detach()) == pytest.approx(float(values.mean()) * scale, rel=1e-10)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_closed_form_in_the_loss(normalize):
    network = mlp(inputs=20, hidden=(12, 9))
    equilibrium = network.free_equilibrium(images(3, (20,))[0])
    got = Homeostasis("closed", normalize=normalize)(network, equilibrium, sample_ids=range(3))
    scale = network.num_neurons if normalize else 1
    assert float(got.detach()) == pytest.approx(float(exact(network, equilibrium.state)) / scale, rel=1e-12)


def test_accepted_limits():
    Homeostasis(weight=0.0, warmup_steps=0, probes=1)
    for settings in ({"weight": -0.1}, {"warmup_steps": -1}):
        with pytest.raises(ValueError, match="of at least 0"):
            Homeostasis(**settings)
