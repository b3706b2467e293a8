"""Graphs: presets, initial weights, shapes, names, and what is refused."""

import math

import pytest
import torch
from equilibria import images

from fklit.eqprop.analysis.alignment import weight_angles
from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.estimators import Cauchy, ComplexStep
from fklit.eqprop.learning.homeostasis import closed_form
from fklit.eqprop.learning.online import Online
from fklit.eqprop.network.activations import ClippedReLU
from fklit.eqprop.network.connections import Convolution, Dense
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.residual import Residual
from fklit.eqprop.presets import MLP, VGG, ConvNet, LoopNet
from fklit.eqprop.training.optimizers import OptimizerSettings, build_optimizer, parameter_groups


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
        (lambda: Convolution("a", "b", stride=0), "stride=0"),
        (lambda: Convolution("a", "b", pooling="sum"), "pooling='sum'"),
        (lambda: Convolution("a", "b", pool=1, pooling="max"), "got pool=1, which pools nothing"),
        (lambda: Residual("a", "b", scale=0.0), "leave the connection out for none"),
        (lambda: Residual("a", "b", scale=float("inf")), "finite scale .* got scale=inf"),
        (lambda: Residual("a", "b").build((2, 4, 4), (3, 4, 4)), "project by a Convolution"),
        (lambda: ClippedReLU(0.0), "ceiling above 0"),
        (lambda: VGG((3, 32, 32), ((4,), ())), "at least one convolution each"),
        (lambda: VGG((32, 32)), "channels, height, width"),
        (lambda: VGG((3, 12, 12), ((4,), (4,), (4,))), "sides that 8 divides"),
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


@pytest.mark.parametrize("tied", [True, False])
def test_first_kernels(tied):
    """Variance one over fan-in in both directions, no weight beyond two standard deviations, gain on both."""
    torch.manual_seed(0)
    link = Convolution("a", "b", kernel_size=5, padding=2, tied=tied, gain=0.5).build((30, 8, 8), (40, 4, 4))
    std = 0.5 / math.sqrt(30 * 25)
    for weight in (link.forward_weight, link.aligned_backward_weight()):
        assert weight.shape == (40, 30, 5, 5)
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.02)
        cut = 2 * std / 0.87962566103423978
        assert 0.98 * cut < float(weight.detach().abs().max()) <= cut * (1 + 1e-6)
    assert (link.backward_weight is None) == tied and link.reciprocal


def test_gains_are_for_weights_between_layers():
    for make in (
        lambda gain: MLP((50,), (40, 30), gain=gain, angle=20.0),
        lambda gain: LoopNet((50,), (40, 30), gain=gain),
        lambda gain: ConvNet((2, 16, 16), (3, 4, 5), gain=gain, angle=20.0),
    ):
        torch.manual_seed(0)
        one = make(1.0).state_dict()
        torch.manual_seed(0)
        for name, weight in make(0.25).state_dict().items():
            factor = 0.25 if "links" in name and "input" not in name else 1.0
            torch.testing.assert_close(weight, factor * one[name])


def test_angles_mix_the_random_and_the_transposed_weights():
    for degrees in (0.0, 50.0, 120.0):
        found = []
        for angle in (90.0, degrees):
            torch.manual_seed(0)
            found.append(Dense("a", "b", angle=angle).build((6,), (5,)))
        random, mixed = (link.backward_weight.detach() for link in found)
        a = math.radians(degrees)
        wanted = math.sin(a) * random + math.cos(a) * found[1].forward_weight.detach().T
        torch.testing.assert_close(mixed, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_largest_accepted_settings(tied):
    Dense("a", "b", angle=180.0, tied=tied)
    Dense("a", "b", angle=0.0, gain=1e-9)
    assert Convolution("a", "b", kernel_size=1, padding=0, pool=1).build((2, 3, 3), (2, 3, 3))
    assert Convolution("a", "b", kernel_size=3, padding=2, pool=1).build((2, 3, 3), (2, 5, 5))
    for options in ({"kernel_size": 0, "padding": 0}, {"padding": 3}, {"padding": -1}):
        with pytest.raises(ValueError, match="expected kernel_size and pool"):
            Convolution("a", "b", **options)
    for angle in (-0.1, 180.1):
        with pytest.raises(ValueError, match="angle in degrees"):
            Dense("a", "b", angle=angle)
    assert not Dense("input", "b").reciprocal and not Dense("input", "b", tied=True).build((2,), (3,)).reciprocal


def test_states_have_the_weights_precision_and_single_for_half():
    network = MLP((9,), (5,))
    for dtype, wanted in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        network.to(dtype)
        assert network.dtype == wanted and all(part.dtype == wanted for part in network.zero_state(2))
        assert network(torch.rand(2, 9, dtype=dtype)).dtype == wanted


def test_the_vgg_preset():
    network = VGG((3, 16, 16), ((4, 5), (6,)), hidden=(8,), num_outputs=7, pooling="max", tied=False, angle=90.0)
    assert network.names == ("conv1_1", "conv1_2", "conv2_1", "dense1", "out")
    wanted = [(4, 16, 16), (5, 8, 8), (6, 4, 4), (8,), (7,)]
    assert [tuple(layer.shape) for layer in network.layers] == wanted
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    assert not network.holomorphic and VGG((1, 8, 8), ((3,), (4,))).holomorphic
    assert [name for name, _ in VGG((1, 8, 8), ((3,),)).named_parameters() if "backward" in name] == []


@pytest.mark.parametrize("estimator", [Cauchy(4), ComplexStep(), Online(4)], ids=lambda e: type(e).__name__)
def test_complex_phases_of_max_pooling_are_refused(estimator):
    with pytest.raises(ValueError, match=r"got the pooling of conv1_1-out; use another .* pooling='softmax'"):
        EquilibriumNetwork(
            (1, 8, 8),
            [Layer("conv1_1", (2, 8, 8)), Layer("out", (2, 4, 4))],
            connections=[Convolution("input", "conv1_1", pool=1), Convolution("conv1_1", "out", pooling="max")],
            estimator=estimator,
        )
    # of the input it is no matter: the drive stays real
    network = VGG((1, 8, 8), ((3,),), pooling="max", estimator=estimator)
    torch.nn.functional.cross_entropy(network(torch.rand(2, 1, 8, 8)), torch.tensor([1, 2])).backward()


def test_a_residual_connection_has_no_weights_and_trains_nothing_else_than_before():
    network = EquilibriumNetwork(
        (4,),
        [Layer("a", (5,)), Layer("b", (5,)), Layer("c", (5,))],
        connections=[Dense("input", "a"), Dense("a", "b"), Dense("b", "c"), Residual("a", "c", scale=0.2)],
    )
    assert not [name for name in network.state_dict() if "a-c" in name]
    assert network.colors == ((0,), (1,), (2,))
    assert "a-c" not in weight_angles(network) and set(weight_angles(network)) == {"a-b", "b-c"}
    groups = parameter_groups(network, OptimizerSettings())
    assert [group["name"] for group in groups] == ["input-a", "a-b", "b-c"]
    with pytest.raises(ValueError, match=r"got factors for \['a-c'\]"):
        parameter_groups(network, OptimizerSettings(rate_factors={"a-c": 2.0}))
    with torch.no_grad():
        for name in ("a-b", "b-c"):
            network.link(name).backward_weight.copy_(network.link(name).forward_weight.T)
    assert float(closed_form(network).detach()) == 0
    build_optimizer(network, OptimizerSettings())
