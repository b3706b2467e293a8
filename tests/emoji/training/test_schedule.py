"""The learning-rate curve."""

import itertools

import torch

from fklit.emoji.training.schedule import warmup_cosine


def test_rises_linearly_and_falls_to_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    curve = warmup_cosine(optimizer, 4, 12)
    rates = []
    for _ in range(13):
        rates.append(curve.get_last_lr()[0])
        optimizer.step()
        curve.step()
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert abs(rates[8] - 1.0) < 1e-6 and rates[12] == 0.0
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
