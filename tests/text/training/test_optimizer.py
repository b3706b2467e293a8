"""Muon with AdamW as one optimizer: the steps of both, schedules, and going on from a state."""

import copy

import torch
from torch import nn

from fklit.learning_rate import warmup_cosine
from fklit.text.training.optimizer import MuonWithAdamW, split_parameters


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"embedding": nn.Embedding(5, 4), "blocks": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])})


def loss(net, seed):
    torch.manual_seed(seed)
    x = net["embedding"](torch.randint(0, 5, (6,)))
    for block in net["blocks"]:
        x = block(x).relu()
    return (x - torch.randn_like(x)).square().mean()


def build(net):
    matrices, others = split_parameters(net, inside="blocks.")
    return MuonWithAdamW(matrices, others, learning_rate=0.02, adamw_learning_rate=3e-3, weight_decay=0.1)


def train(net, optimizer, schedule, steps):
    for step in steps:
        optimizer.zero_grad()
        loss(net, step).backward()
        optimizer.step()
        schedule.step()


def test_parameters_are_split_by_shape_and_place():
    matrices, others = split_parameters(network(), inside="blocks.")
    assert [tuple(p.shape) for p in matrices] == [(4, 4), (4, 4)]
    assert [tuple(p.shape) for p in others] == [(5, 4), (4,), (4,)]


def test_steps_are_those_of_both_optimizers():
    net, other = network(), network()
    optimizer = build(net)
    train(net, optimizer, warmup_cosine(optimizer, 2, 6), range(5))
    matrices, others = split_parameters(other, inside="blocks.")
    pair = (
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    )
    schedules = [warmup_cosine(one, 2, 6) for one in pair]
    for step in range(5):
        loss(other, step).backward()
        for one, schedule in zip(pair, schedules, strict=True):
            one.step()
            one.zero_grad()
            schedule.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_goes_on_from_a_state():
    net = network()
    optimizer = build(net)
    schedule = warmup_cosine(optimizer, 1, 9)
    train(net, optimizer, schedule, range(3))
    resumed = copy.deepcopy(net)
    again = build(resumed)
    # As Lightning does: the schedule is made first, then both states are loaded.
    second = warmup_cosine(again, 1, 9)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    second.load_state_dict(schedule.state_dict())
    train(net, optimizer, schedule, range(3, 7))
    train(resumed, again, second, range(3, 7))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in again.param_groups]


def test_closures_are_called_with_gradients():
    net = network()
    optimizer = build(net)

    def closure():
        optimizer.zero_grad()
        value = loss(net, 0)
        value.backward()
        return value

    before = copy.deepcopy(net)
    with torch.no_grad():
        assert optimizer.step(closure) > 0
    assert not torch.equal(before["blocks"][0].weight, net["blocks"][0].weight)
