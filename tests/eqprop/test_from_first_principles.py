"""The whole chain against a few lines that share no code with it: fields, fixed points, errors, gradients, samples."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import TIGHT, convnet, images, mlp, relative

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
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.relax import iterate, relax
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


CASES = {
    "mlp": (mlp_inputs, shifted, lambda: mlp(inputs=12, hidden=(9, 8), angle=70.0, free=TIGHT)),
    "loop": (loop_inputs, shifted, lambda: LoopNet((12,), (9, 8), gain=0.7, free=TIGHT).double()),
    "conv": (conv_inputs, dsilu, lambda: convnet((3, 4, 5), shape=(2, 16, 16), tied=False, free=TIGHT)),
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
    for k, estimators in enumerate(
        (
            [ExactResponse(relaxation=TIGHT), Cauchy(6, 0.02, relaxation=close)],
            [RecurrentBackprop(relaxation=TIGHT), CorrectedNudge(1e-3, relaxation=close)],
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
