"""The whole chain against a few lines that share no code with it: fields, fixed points, errors, gradients, samples."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from equilibria import TIGHT, convnet, images, mlp, relative

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
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
from fklit.eqprop.learning.nudges import CrossEntropyNudge
from fklit.eqprop.learning.online import Online
from fklit.eqprop.network.activations import ClippedReLU, DoubleSiLU
from fklit.eqprop.network.connections import Convolution, Dense
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.residual import Residual
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.iteration import iterate
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation


def pooled(z):
    """Softmax pooling of 2 x 2 windows by unfolding."""
    n, c, h, w = z.shape
    windows = F.unfold(z.reshape(n * c, 1, h, w), 2, stride=2)
    return (torch.softmax(windows, 1) * windows).sum(1).view(n, c, h // 2, w // 2)


def dsilu(u):
    return u / 2 * torch.sigmoid(u) + (1 - u / 2) * torch.sigmoid(u - 2)


def shifted(u):
    return 1 / (1 + torch.exp(-4 * u + 2))


def conv_inputs(w, s, x):
    """Inputs of input -> conv1 -> conv2 -> out with backward weights, as section 2 of the paper says."""
    totals = []
    names, padding = ["input", "conv1", "conv2", "out"], [1, 1, 0]
    for k in range(3):
        here = x if k == 0 else s[k - 1]
        u = pooled(F.conv2d(here, w[f"links.{names[k]}-{names[k + 1]}.forward_weight"], padding=padding[k]))
        u = u + w[f"biases.{names[k + 1]}"]
        if k < 2:
            z = F.conv2d(s[k], w[f"links.{names[k + 1]}-{names[k + 2]}.backward_weight"], padding=padding[k + 1])
            (down,) = torch.autograd.grad((pooled(z) * s[k + 1]).sum(), s[k], create_graph=True)
            u = u + down
        totals.append(u)
    return totals


def mlp_inputs(w, s, x):
    a, b, c = s
    return [
        x @ w["links.input-l1.forward_weight"].T + b @ w["links.l1-l2.backward_weight"].T + w["biases.l1"],
        a @ w["links.l1-l2.forward_weight"].T + c @ w["links.l2-out.backward_weight"].T + w["biases.l2"],
        b @ w["links.l2-out.forward_weight"].T + w["biases.out"],
    ]


def loop_inputs(w, s, x):
    a, b, c = s
    return [
        x @ w["links.input-l1.forward_weight"].T + c @ w["links.out-l1.forward_weight"].T + w["biases.l1"],
        a @ w["links.l1-l2.forward_weight"].T + w["biases.l2"],
        b @ w["links.l2-out.forward_weight"].T + w["biases.out"],
    ]


KERNELS = {"input-a": (2, 3), "a-b": (1, 1), "b-c": (1, 1), "c-d": (2, 2)}  # stride and pooling window of each


def strided_inputs(w, s, x, pooled):
    """Inputs of input -> a -> b -> c -> d -> out with a residual a - c of half the activities, as `strided` has it."""
    a, b, c, d, out = s

    def up(name, here, direction="forward_weight"):
        stride, window = KERNELS[name]
        z = F.conv2d(here, w[f"links.{name}.{direction}"], padding=1, stride=stride)
        return z if window == 1 else pooled(z, window)

    def down(name, here, above):
        return torch.autograd.grad((up(name, here, "backward_weight") * above).sum(), here, create_graph=True)[0]

    return [
        up("input-a", x) + down("a-b", a, b) + c / 2 + w["biases.a"],
        up("a-b", a) + down("b-c", b, c) + w["biases.b"],
        up("b-c", b) + a / 2 + down("c-d", c, d) + w["biases.c"],
        up("c-d", c) + (out @ w["links.d-out.backward_weight"].T).view(d.shape) + w["biases.d"],
        d.flatten(1) @ w["links.d-out.forward_weight"].T + w["biases.out"],
    ]


def strided(pooling, activation):
    """17 x 17 pixels, of which a stride of 2 leaves 9 x 9 and windows of 3 leave 3 x 3; then 2 x 2 and 1 x 1."""
    torch.manual_seed(1)

    def convolution(name, **more):
        stride, window = KERNELS[name]
        kind = {"pooling": pooling} if window > 1 else {}
        return Convolution(*name.split("-"), stride=stride, pool=window, gain=0.4, angle=60.0, **kind, **more)

    square = (3, 3, 3)
    return EquilibriumNetwork(
        (2, 17, 17),
        [Layer("a", square), Layer("b", square), Layer("c", square), Layer("d", (4, 1, 1)), Layer("out", (6,))],
        connections=[
            *map(convolution, KERNELS),
            Residual("a", "c", scale=0.5),
            Dense("d", "out", gain=0.6, angle=60.0),
        ],
        num_classes=10,
        activation=activation,
        free=TIGHT,
    ).double()


def averaged(z, window):
    return F.avg_pool2d(z, window)


def softmaxed(z, window):
    n, c, h, w = z.shape
    windows = F.unfold(z.reshape(n * c, 1, h, w), window, stride=window)
    return (torch.softmax(windows, 1) * windows).sum(1).view(n, c, h // window, w // window)


def largest(z, window):
    n, c, h, w = z.shape
    return F.unfold(z.reshape(n * c, 1, h, w), window, stride=window).amax(1).view(n, c, h // window, w // window)


def clipped(u):
    return torch.minimum(torch.relu(u), torch.tensor(0.9, dtype=u.dtype))


CASES = {
    "mlp": (mlp_inputs, shifted, lambda: mlp(inputs=12, hidden=(9, 8), angle=70.0, free=TIGHT)),
    "loop": (loop_inputs, shifted, lambda: LoopNet((12,), (9, 8), gain=0.7, free=TIGHT).double()),
    "conv": (conv_inputs, dsilu, lambda: convnet((3, 4, 5), shape=(2, 16, 16), tied=False, free=TIGHT)),
    "strides, average pooling, residual": (
        partial(strided_inputs, pooled=averaged),
        dsilu,
        lambda: strided("average", DoubleSiLU()),
    ),
    "strides, softmax pooling, residual": (
        partial(strided_inputs, pooled=softmaxed),
        dsilu,
        lambda: strided("softmax", DoubleSiLU()),
    ),
    "strides, max pooling, residual": (
        partial(strided_inputs, pooled=largest),
        dsilu,
        lambda: strided("max", DoubleSiLU()),
    ),
    "strides, max pooling, residual, clipped": (
        partial(strided_inputs, pooled=largest),
        clipped,
        lambda: strided("max", ClippedReLU(0.9)),
    ),
}


def reference(inputs, act, weights, shapes, x, y):
    """Fixed point of one sample and its gradients `(du/dw)^T e`: for EP's error vector, and for the true one.

    `s = act(u(s) + beta f)` gives `e = (1 - D H)^-1 D f` with `H = du/ds` and `D = act'`; the true error vector
    has `H^T` in place of H.
    """
    sizes = [torch.Size(shape).numel() for shape in shapes]

    def split(row):
        return [part.view(1, *shape) for part, shape in zip(row.split(sizes), shapes, strict=True)]

    def total(row, w):
        return torch.cat([u.flatten() for u in inputs(w, split(row), x)])

    s = torch.zeros(sum(sizes), dtype=torch.float64)
    for _ in range(300):
        s = act(total(s.requires_grad_(), weights)).detach()
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items() if "readout" not in name}
    u = total(s.requires_grad_(), leaves)
    point = u.detach().requires_grad_()
    slopes = torch.diag(torch.autograd.grad(act(point).sum(), point)[0])
    jacobian = torch.autograd.functional.jacobian(lambda row: total(row, weights), s.detach())
    out = s.detach()[-sizes[-1] :].clone().requires_grad_()
    logits = weights["readout.weight"] @ out + weights["readout.bias"]
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits[None], y), out)
    force = torch.cat([torch.zeros(sum(sizes[:-1]), dtype=torch.float64), gradient])
    identity, found = torch.eye(len(s), dtype=torch.float64), []
    for matrix in (jacobian, jacobian.T):
        error = torch.linalg.solve(identity - slopes @ matrix, slopes @ force)
        found.append(torch.autograd.grad(u, list(leaves.values()), error, retain_graph=True))
    return s.detach(), found


@pytest.mark.parametrize("kind", CASES)
def test_gradients_from_a_dense_jacobian_of_a_field_written_anew(kind):
    inputs, act, make = CASES[kind]
    torch.manual_seed(5)
    network = make()
    x, y = images(2, network.input_shape)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    shapes = [tuple(p.shape) for p in network.layers]
    samples = [reference(inputs, act, weights, shapes, x[i : i + 1], y[i : i + 1]) for i in range(2)]
    state = torch.cat([part.flatten(1) for part in network.free_equilibrium(x).state], 1)
    assert relative([state], [torch.stack([s for s, _ in samples])]) < 1e-9
    close = Relaxation(300, 1e-14)
    # where there is no complex derivative, the same limit by small real nudges
    smooth = network.holomorphic
    finite = Cauchy(6, 0.02, relaxation=close) if smooth else Symmetric(1e-5, relaxation=close)
    corrected = CorrectedNudge(1e-3 if smooth else 1e-6, relaxation=close)  # so small that no kink is crossed
    for k, estimators in enumerate(
        (
            [ExactResponse(relaxation=TIGHT), finite],
            [RecurrentBackprop(relaxation=TIGHT), corrected],
        )
    ):
        wanted = [a + b for a, b in zip(samples[0][1][k], samples[1][1][k], strict=True)]
        for estimator in estimators:
            network.estimator = estimator
            network.zero_grad()
            F.cross_entropy(network(x), y, reduction="sum").backward()
            got = [weight.grad for name, weight in network.named_parameters() if "readout" not in name]
            assert relative(got, wanted) < 1e-6, type(estimator).__name__


ESTIMATORS = [
    OneSided(0.1),
    Symmetric(0.1),
    Centered(0.1),
    Cauchy(4, 0.2),
    ComplexStep(1e-3),
    ExactResponse(),
    RecurrentBackprop(),
    CorrectedNudge(0.1),
    Online(4, 0.2, from_zero=True),
]


@pytest.mark.parametrize("live", [False, True], ids=["constant", "live"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_gradient_of_a_batch_is_the_sum_of_its_samples_alone(estimator, live):
    """Samples stop at different iterations and leave the batch; none of it shows in another sample's gradient."""
    network = mlp(inputs=30, hidden=(20, 15), gain=1.0, free=Relaxation(150, 1e-4), estimator=estimator)
    x, y = images(7, (30,))
    x = x * torch.linspace(0.1, 3, 7)[:, None].double()
    steps = network.free_equilibrium(x).result.iterations
    assert steps.max() > 1.5 * steps.min()

    def gradient(rows):
        network.zero_grad()
        out = network(x[rows], CrossEntropyNudge(y[rows], 10) if live else None)
        F.cross_entropy(out, y[rows], reduction="sum").backward()
        return [weight.grad.clone() for weight in network.parameters()]

    together = gradient(torch.arange(7))
    alone = [gradient(torch.tensor([i])) for i in range(7)]
    assert relative(together, [sum(parts) for parts in zip(*alone, strict=True)]) < 1e-9


@pytest.mark.parametrize("rate", [1.0, 0.6])
@pytest.mark.parametrize("order", ["sequential", "synchronous"])
def test_the_residual_is_the_last_change_and_the_stop_the_first_small_one(order, rate):
    network = mlp(inputs=30, hidden=(20, 15), gain=1.0)
    x, _ = images(5, (30,))
    relaxation = Relaxation(400, 1e-4, order=order, rate=rate)
    field = NetworkField(network, tuple(part.detach() for part in network.drive(x)))
    result = relax(field, network.zero_state(5), relaxation)
    state, changes = network.zero_state(5), []
    with torch.no_grad():
        for _ in range(int(result.iterations.max())):
            new = iterate(field, state, relaxation)
            changes.append(torch.stack([(a - b).abs().amax(1) for a, b in zip(new, state, strict=True)]).amax(0) / rate)
            state = new
    changes = torch.stack(changes)
    for i in range(5):
        first = int((changes[:, i] < 1e-4).nonzero()[0]) + 1
        assert int(result.iterations[i]) == first
        assert float(result.residual[i]) == pytest.approx(float(changes[first - 1, i]), rel=1e-9)
