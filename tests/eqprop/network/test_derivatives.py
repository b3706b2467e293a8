"""Hand-written derivatives of links, and their gradients, equal those by autograd, for many directions at once."""

import pytest
import torch
from equilibria import convnet, images, mlp

from fklit.eqprop.analysis.references import flatten_state, recurrent_jacobian, unflatten_state
from fklit.eqprop.network.autograd_derivative import AutogradDerivative
from fklit.eqprop.network.connections import Convolution, Dense
from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.residual import Residual

PRODUCTS = ["forward_jvp", "forward_vjp", "backward_jvp", "backward_vjp", "curvature_jvp", "curvature_vjp"]


def links():
    for tied in (True, False):
        yield Dense("a", "b", tied=tied), (5,), (2, 3, 1)
        for pool in (1, 2, 3):
            yield Convolution("a", "b", tied=tied, pool=pool), (2, 6, 6), (3, 6 // pool, 6 // pool)
        yield Convolution("a", "b", tied=tied, padding=0, kernel_size=4, pool=3), (2, 6, 6), (3, 1, 1)
        for pooling in ("softmax", "max", "average"):
            # 8 x 11 pixels leave one column over: 4 x 6, then 2 x 3
            yield Convolution("a", "b", tied=tied, stride=2, pooling=pooling), (2, 8, 11), (3, 2, 3)
    yield Residual("a", "b", scale=-0.7), (2, 3, 3), (2, 3, 3)


def normal(generator, rows, shape):
    return torch.randn(rows, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("case", list(links()), ids=lambda case: "")
@pytest.mark.parametrize("copies", [1, 3])
def test_products(case, copies):
    connection, pre, post = case
    link = connection.build(pre, post).double()
    generator = torch.Generator().manual_seed(0)
    lower, upper = normal(generator, 2, pre), normal(generator, 2, post)
    mine = link.derivative(lower, upper)
    by_autograd = AutogradDerivative(link.to_post, link.to_pre, lower, upper)
    below, above = normal(generator, 2 * copies, pre), normal(generator, 2 * copies, post)
    for name in PRODUCTS:
        v = below if name in ("forward_jvp", "backward_vjp", "curvature_jvp", "curvature_vjp") else above
        got, wanted = getattr(mine, name)(v), getattr(by_autograd, name)(v)
        gradients = []
        for product in (got, wanted):
            value = torch.zeros(()) if product is None or not product.requires_grad else product.sin().sum()
            weights = list(link.parameters())
            found = [None] * len(weights)
            if value.requires_grad and weights:
                found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            gradients.append([torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)])
        if got is None:
            assert not wanted.any()
            continue
        torch.testing.assert_close(got, wanted, msg=name)
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, msg=name)

    curvature, both = mine.curvature_jvp(below), mine.backward_jvp(above, below)
    alone = mine.backward_jvp(above)
    torch.testing.assert_close(both, alone if curvature is None else alone + curvature)
    torch.testing.assert_close(both, by_autograd.backward_jvp(above, below))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_whole_network(kind):
    """Against the Jacobian that torch makes of the recurrent input, column by column."""
    network = mlp(inputs=6, hidden=(5, 4)) if kind == "mlp" else convnet((2, 3), tied=False, shape=(1, 8, 8))
    state = network.free_equilibrium(images(2, network.input_shape)[0]).state

    def inputs(row):
        found = network.recurrent(unflatten_state(row[None], state))
        return torch.cat([found[i].flatten() for i in range(len(state))])

    rows = flatten_state(state)
    wanted = torch.stack([torch.autograd.functional.jacobian(inputs, row) for row in rows])
    torch.testing.assert_close(recurrent_jacobian(network, state), wanted)
    direction = tuple(torch.randn_like(part) for part in state)
    flat = flatten_state(direction)[..., None]
    linear = LinearizedRecurrence(network, state)
    for products, matrix in (
        (linear.jvp(direction), wanted),
        (linear.vjp(direction), wanted.mT),
        (linear.asymmetry(direction), wanted - wanted.mT),
    ):
        got = flatten_state(tuple(products[i] for i in range(len(state))))
        torch.testing.assert_close(got, (matrix @ flat)[..., 0])


def test_a_link_of_the_users_own_needs_no_derivatives():
    """The same numbers without the hand-written class, for every use of derivatives."""
    network = convnet((2, 3), tied=False, shape=(1, 8, 8))
    state = network.free_equilibrium(images(2, network.input_shape)[0]).state
    direction = tuple(torch.randn_like(part) for part in state)
    wanted = LinearizedRecurrence(network, state)
    for link in network.links.values():
        link.derivative = lambda pre, post, link=link: AutogradDerivative(link.to_post, link.to_pre, pre, post)
    got = LinearizedRecurrence(network, state)
    for name in ("jvp", "vjp", "asymmetry"):
        a, b = getattr(got, name)(direction), getattr(wanted, name)(direction)
        for i in b:
            torch.testing.assert_close(a[i], b[i], rtol=1e-9, atol=1e-12)


def test_only_derivatives_by_autograd_must_compute_the_asymmetry_of_the_curvature():
    for connection, pre, post in links():
        link = connection.build(pre, post)
        lower, upper = torch.zeros(1, *pre), torch.zeros(1, *post)
        assert link.derivative(lower, upper).symmetric_curvature
        assert not AutogradDerivative(link.to_post, link.to_pre, lower, upper).symmetric_curvature
