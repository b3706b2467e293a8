"""Centered EP: the contrast of the energy's derivatives at two nudged states, as published."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import TIGHT, images, relative

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.centered import Centered
from fklit.eqprop.learning.nudges import CrossEntropyNudge
from fklit.eqprop.network.activations import Tanh
from fklit.eqprop.network.connections import Convolution, Dense
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.residual import Residual
from fklit.eqprop.relaxation.settings import Relaxation

CLOSE = Relaxation(400, 1e-13)


def network(pool, beta):
    """input -> a -> b -> c -> out, tied, with a residual a - c."""
    torch.manual_seed(0)
    return EquilibriumNetwork(
        (1, 6, 6),
        [Layer("a", (2, 3, 3)), Layer("b", (2, 3, 3)), Layer("c", (2, 3, 3)), Layer("out", (5,))],
        connections=[
            Convolution("input", "a", pool=2, pooling=pool) if pool else Convolution("input", "a", stride=2, pool=1),
            Convolution("a", "b", pool=1, tied=True, gain=0.25),
            Convolution("b", "c", pool=1, tied=True, gain=0.25),
            Residual("a", "c", scale=0.2),
            Dense("c", "out", tied=True, gain=0.25),
        ],
        num_classes=10,
        activation=Tanh(),
        free=TIGHT,
        estimator=Centered(beta, relaxation=CLOSE),
    ).double()


def energy(w, s, x, pool):
    """Phi, whose derivative with respect to the activities is the input of each layer."""
    a, b, c, out = s
    if pool:
        pooled = F.max_pool2d if pool == "max" else F.avg_pool2d
        drive = pooled(F.conv2d(x, w["links.input-a.forward_weight"], padding=1), 2)
    else:
        drive = F.conv2d(x, w["links.input-a.forward_weight"], padding=1, stride=2)
    total = (drive * a).sum() + 0.2 * (a * c).sum()
    total = total + (F.conv2d(a, w["links.a-b.forward_weight"], padding=1) * b).sum()
    total = total + (F.conv2d(b, w["links.b-c.forward_weight"], padding=1) * c).sum()
    total = total + ((c.flatten(1) @ w["links.c-out.forward_weight"].T) * out).sum()
    return (
        total
        + sum((w[f"biases.{name}"] * part).sum() for name, part in zip("abc", (a, b, c), strict=True))
        + (w["biases.out"] * out).sum()
    )


def nudged(w, x, y, pool, beta):
    """The state nudged by beta, by iterating `s <- tanh(dPhi/ds + beta dL/ds)`."""
    s = [torch.zeros(len(x), *shape, dtype=torch.float64) for shape in ((2, 3, 3), (2, 3, 3), (2, 3, 3), (5,))]
    for _ in range(400):
        s = [part.detach().requires_grad_() for part in s]
        loss = F.cross_entropy(s[3] @ w["readout.weight"].T + w["readout.bias"], y, reduction="sum")
        inputs = torch.autograd.grad(energy(w, s, x, pool) + beta * loss, s)
        s = [(part + torch.tanh(new)) / 2 for part, new in zip(s, inputs, strict=True)]
    return [part.detach() for part in s]


@pytest.mark.parametrize("pool", [None, "max", "average"])
def test_the_gradient_is_the_published_contrast(pool):
    beta = 0.3
    net = network(pool, beta)
    x, y = images(3, (1, 6, 6))
    F.cross_entropy(net(x, CrossEntropyNudge(y, 10)), y, reduction="sum").backward()
    w = {name: weight.detach().clone().requires_grad_() for name, weight in net.named_parameters()}
    plus, minus = (nudged(w, x, y, pool, b) for b in (beta, -beta))
    contrast = (energy(w, plus, x, pool) - energy(w, minus, x, pool)) / (2 * beta)
    contrast.backward()
    dynamics = net.dynamics_parameters()
    wanted = [w[name].grad for name in dynamics]
    assert relative([weight.grad for weight in dynamics.values()], wanted) < 1e-9
