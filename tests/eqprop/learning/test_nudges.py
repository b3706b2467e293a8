"""Losses as nudges: what fits a network, and when the differentiated loss is told to be another one."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import images, mlp

from fklit.eqprop import CrossEntropyNudge, Dense, EquilibriumNetwork, Layer, MSENudge


def gradients(network):
    return tuple(weight.grad.clone() for weight in network.parameters())


def backward(network, x, y, *, live=False, scale=1.0):
    network.zero_grad()
    nudge = CrossEntropyNudge(y, 10) if live else None
    (scale * F.cross_entropy(network(x, nudge), y)).backward()
    return gradients(network)


def tied(**more):
    return mlp(tied=True, inputs=50, hidden=(32, 24), **more)


def test_a_live_nudge_must_be_the_loss():
    network = tied()
    x, y = images(3, (50,))
    with pytest.raises(ValueError, match="expected the gradient of the loss of CrossEntropyNudge"):
        F.cross_entropy(network(x, CrossEntropyNudge((y + 1) % 10, 10)), y).backward()


def test_bad_nudges():
    with pytest.raises(ValueError, match="expected num_classes with labels, got none"):
        CrossEntropyNudge(torch.tensor([1]))
    with pytest.raises(ValueError, match="expected labels from 0 to 9, got labels from 1 to 10"):
        CrossEntropyNudge(torch.tensor([1, 10]), 10)
    network = EquilibriumNetwork((3,), [Layer("a", (2,))], connections=[Dense("input", "a")])
    x = torch.ones(1, 3)
    with pytest.raises(ValueError, match="expected a network with a readout for the cross-entropy"):
        network(x, CrossEntropyNudge(torch.tensor([1]), 2)).sum().backward()


def test_confident_samples_do_not_look_like_another_loss():
    """Their force is rounding error; the comparison of losses must not trip over it."""
    network = tied(unconverged="keep").float()
    x, _ = images(8, (50,), dtype=torch.float32)
    with torch.no_grad():
        network.readout.weight.mul_(400)
        y = network(x).argmax(1)
        confidence = 1 - torch.softmax(network(x).double(), 1).amax(1)
    assert (confidence < 1e-5).any()
    for factor in (1.0, 0.5):
        with torch.no_grad():
            network.readout.weight.mul_(factor)
        assert all(torch.isfinite(g).all() for g in backward(network, x, y, live=True))


def test_targets_of_wrong_shapes():
    network, plain = tied(), tied(num_classes=None)
    x, y = images(4, (50,))
    with pytest.raises(ValueError, match="expected one target of the nudge for each of 4 samples, got 3"):
        network(x, CrossEntropyNudge(y[:3], 10))
    with pytest.raises(ValueError, match="expected targets with the 10 classes of the readout, got 7"):
        network(x, CrossEntropyNudge(torch.full((4, 7), 1 / 7))).sum().backward()
    with pytest.raises(
        ValueError, match=r"expected a target for 4 samples of shape \(10,\), got one of shape \(4, 7\)"
    ):
        plain(x, MSENudge(torch.zeros(4, 7))).sum().backward()


def orthogonal_part(network, x, nudge):
    """Free activities with gradient, and for each sample a vector of the nudge's size that is orthogonal to it."""
    equilibrium = network.free_equilibrium(x)
    out = network.attach(equilibrium, nudge=nudge)[network.output]
    force = nudge.force(network, equilibrium.state[network.output])
    other = torch.randn_like(force)
    other = other - (other * force).sum(1, keepdim=True) / force.square().sum(1, keepdim=True) * force
    return out, other * (force.norm(dim=1) / other.norm(dim=1))[:, None]


@pytest.mark.parametrize(("share", "refused"), [(0.009, False), (0.011, True)])
def test_the_gradient_may_differ_from_the_nudges_by_a_hundredth(share, refused):
    torch.manual_seed(0)
    network = tied()
    x, y = images(3, (50,))
    out, other = orthogonal_part(network, x, CrossEntropyNudge(y, 10))
    rows = torch.tensor([0.0, 1.0, 0.0])[:, None]  # in one sample of three
    loss = F.cross_entropy(network.readout(out), y, reduction="sum") + share * (rows * other * out).sum()
    if not refused:
        loss.backward()
        return
    with pytest.raises(ValueError, match="got another one; differentiate the same loss"):
        loss.backward()


@pytest.mark.parametrize(("size", "refused"), [(1.5e-12, False), (3e-12, True)])
def test_the_gradient_is_compared_where_the_force_is_above_rounding(size, refused):
    """In double precision, 1e4 times its resolution is 2.2e-12."""
    network = tied(num_classes=None)
    x, _ = images(2, (50,))
    equilibrium = network.free_equilibrium(x)
    target = equilibrium.state[2].clone()
    target[:, 0] -= size
    loss = network.attach(equilibrium, nudge=MSENudge(target))[2][:, 1].sum()  # of another direction altogether
    if not refused:
        loss.backward()
        return
    with pytest.raises(ValueError, match="loss of MSENudge"):
        loss.backward()


@pytest.mark.parametrize(("miss", "refused"), [(1e-12, False), (2.5e-12, True)])
def test_rounding_is_relative_to_the_readout(miss, refused):
    """The force of a two-class readout with opposite rows is its size times the missing probability."""
    network = tied(num_classes=2)
    with torch.no_grad():
        row = 100 * torch.ones(10, dtype=torch.float64) / 10**0.5
        network.readout.weight.copy_(torch.stack([row, -row]))
    x, _ = images(1, (50,))
    y = torch.tensor([0])
    equilibrium = network.free_equilibrium(x)
    with torch.no_grad():
        logits = network.readout(equilibrium.state[2])
        margin = torch.tensor(1 / miss - 1, dtype=torch.float64).log()
        network.readout.bias[0] += margin - (logits[0, 0] - logits[0, 1])
    loss = network.attach(equilibrium, nudge=CrossEntropyNudge(y, 2))[2][:, 1].sum()
    if not refused:
        loss.backward()
        return
    with pytest.raises(ValueError, match="loss of CrossEntropyNudge"):
        loss.backward()
