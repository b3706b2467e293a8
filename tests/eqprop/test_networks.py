"""Graphs: presets, initial weights, shapes, names, and what is refused."""

import math

import pytest
import torch
from equilibria import images

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.network.connections import Convolution, Dense
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.presets import MLP, ConvNet, LoopNet


def shapes(network):
    return {name: tuple(weight.shape) for name, weight in network.named_parameters()}


def test_the_papers_mlp():
    network = MLP()
    assert shapes(network) == {
        "links.input-l1.forward_weight": (256, 784),
        "links.l1-l2.forward_weight": (256, 256),
        "links.l1-l2.backward_weight": (256, 256),
        "links.l2-out.forward_weight": (10, 256),
        "links.l2-out.backward_weight": (256, 10),
        "biases.l1": (256,),
        "biases.l2": (256,),
        "biases.out": (10,),
        "readout.weight": (10, 10),
        "readout.bias": (10,),
    }
    assert network.num_neurons == 522
    assert network(torch.rand(2, 28, 28)).shape == (2, 10)


def test_the_papers_loop_net():
    network = LoopNet()
    assert not any("backward" in name for name in shapes(network))
    assert set(network.ends) == {"input-l1", "l1-l2", "l2-out", "out-l1"}
    assert network.colors == ((0,), (1,), (2,))


def test_the_papers_conv_net():
    network = ConvNet()
    assert [tuple(p.shape) for p in network.layers] == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1)]
    assert shapes(network)["links.conv3-out.backward_weight"] == (512, 512, 3, 3)
    assert shapes(network)["readout.weight"] == (10, 512)
    assert shapes(network)["biases.conv1"] == (128, 1, 1)
    small = ConvNet(channels=(4, 5, 6, 7))
    state = small.free_equilibrium(torch.rand(2, 3, 32, 32)).state
    assert [tuple(part.shape) for part in state] == [(2, 4, 16, 16), (2, 5, 8, 8), (2, 6, 4, 4), (2, 7, 1, 1)]


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_first_weights(angle):
    """Variance one over fan-in, and the angle between forward and backward weights."""
    torch.manual_seed(0)
    network = MLP((400,), (300, 200), angle=angle, gain=0.5)
    first, link = network.link("input-l1").forward_weight, network.link("l1-l2")
    assert float(first.detach().std()) == pytest.approx(1 / 20, rel=0.02)
    up, down = link.forward_weight.detach(), link.aligned_backward_weight().detach()
    assert float(up.std()) == pytest.approx(0.5 / math.sqrt(300), rel=0.02)
    if angle == 0.0:
        assert torch.equal(up, down)
    if angle == 90.0:  # its own fan-in
        assert float(down.std()) == pytest.approx(0.5 / math.sqrt(200), rel=0.02)
        assert abs(float((up * down).sum() / up.norm() / down.norm())) < 0.02
    mixed = math.cos(math.radians(angle))
    assert float((up * down).sum() / up.square().sum()) == pytest.approx(mixed, abs=0.02)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_convolutions_down_are_the_derivative_of_their_way_up(pool, tied):
    link = Convolution("a", "b", pool=pool, tied=tied).build((2, 6, 6), (3, 6 // pool, 6 // pool)).double()
    below = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    above = torch.randn(2, 3, 6 // pool, 6 // pool, dtype=torch.float64)
    up = Convolution("a", "b", pool=pool).build((2, 6, 6), (3, 6 // pool, 6 // pool)).double()
    with torch.no_grad():
        up.forward_weight.copy_(link.aligned_backward_weight())
    (wanted,) = torch.autograd.grad(up.to_post(below), below, above)
    torch.testing.assert_close(link.to_pre(below, above), wanted)


def test_saved_and_loaded():
    network, other = MLP((9,), (5,)), MLP((9,), (5,))
    other.load_state_dict(network.state_dict())
    x = torch.rand(3, 9)
    assert torch.equal(network(x), other(x))


def test_output_in_the_middle_and_two_inputs():
    network = EquilibriumNetwork(
        (6,),
        [Layer("a", (5,)), Layer("b", (4,)), Layer("c", (3,), bias=False)],
        connections=[Dense("input", "a"), Dense("input", "b"), Dense("a", "b"), Dense("b", "c")],
        output="b",
    )
    x, _ = images(2, (6,), dtype=torch.float32)
    out = network(x)
    assert out.shape == (2, 4) and "biases.c" not in dict(network.named_parameters())
    out.sum().backward()
    assert network.link("b-c").forward_weight.grad.abs().sum() > 0


def test_wrong_input():
    with pytest.raises(ValueError, match=r"expected samples of shape \(4,\), got a batch of shape \(2, 5\)"):
        MLP((4,), (3,))(torch.rand(2, 5))


A, B = Layer("a", (2,)), Layer("b", (3,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer("input", (3,)), "got 'input'; rename"),
        (lambda: Layer("a b", (3,)), "got 'a b'; rename"),
        (lambda: Layer("a", ()), "expected sides of at least 1"),
        (lambda: EquilibriumNetwork((2,), [A, A], connections=[]), "with different names"),
        (lambda: EquilibriumNetwork((2,), [A], connections=[]), r"got none to \['a'\]"),
        (lambda: EquilibriumNetwork((2,), [A], connections=[Dense("input", "z")]), r"in input-z, got \['z'\]"),
        (
            lambda: EquilibriumNetwork((2,), [A], connections=[Dense("input", "a")], output="b"),
            r"output to be one of \['a'\], got 'b'",
        ),
        (
            lambda: EquilibriumNetwork((2,), [A], connections=[Dense("input", "a")] * 2),
            "got another one with",
        ),
        (
            lambda: EquilibriumNetwork(
                (2,), [A, B], connections=[Dense("input", "a"), Dense("a", "b"), Dense("b", "a", reciprocal=False)]
            ),
            "got another one with",
        ),
        (
            lambda: EquilibriumNetwork((2,), [A], connections=[Dense("input", "a")], unconverged="ignore"),
            "unconverged='ignore'",
        ),
        (lambda: Dense("a", "input"), "got 'input'; connections lead from"),
        (lambda: Dense("a", "a"), "reciprocal=False"),
        (lambda: Dense("a", "b", angle=-1), "angle in degrees .* got -1"),
        (lambda: Dense("a", "b", gain=0), "gain above 0, got 0"),
        (lambda: Convolution("a", "b", pool=0), "pool=0"),
        (lambda: Convolution("a", "b").build((2, 5, 5), (2, 2, 2)), "expected sides that pool=2 divides"),
        (lambda: Convolution("a", "b").build((2, 6, 6), (4, 2, 2)), r"declare b as \(4, 3, 3\)"),
        (lambda: Convolution("a", "b").build((2,), (4, 2, 2)), "channels, height, width"),
        (lambda: ConvNet((3, 28, 28)), "32 x 32 pixels"),
        (lambda: LoopNet(hidden=(3,)), "two hidden layers"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
