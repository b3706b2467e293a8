"""The alignment metric: cosines by hand, over several batches."""

import math

import pytest
import torch

from fklit.metrics import Alignment


def feed(metric, error, reference, usable, left, right):
    metric.update(
        error, reference, usable=torch.tensor(usable), gradients={"w": left}, reference_gradients={"w": right}
    )


def test_cosines():
    metric = Alignment(["l1", "out"], {"w": 2, "v": 3})
    one, other = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    zero = torch.zeros(3, 2)
    feed(metric, [one, zero], [other, one], [True, True, False], torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert float(metric.compute()["error/l1"]) == pytest.approx(math.sqrt(0.5) / 2)  # the third is not usable
    assert math.isnan(metric.compute()["error/out"]) and math.isnan(metric.compute()["gradient/v"])
    assert float(metric.compute()["gradient/w"]) == pytest.approx(1)
    feed(metric, [one, one], [one, -one], [True] * 3, torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0]))
    values = metric.compute()
    assert float(values["error/l1"]) == pytest.approx((math.sqrt(0.5) + 3) / 5)
    assert float(values["error/out"]) == pytest.approx(-1)
    assert float(values["gradient/w"]) == pytest.approx(math.sqrt(0.5))  # of (1, 1) and (1, 0)


def test_one_error_per_layer():
    with pytest.raises(ValueError, match="for each of 2 layers, got 1 and 2"):
        feed(
            Alignment(["a", "b"], {}), [torch.ones(1, 1)], [torch.ones(1, 1)] * 2, [True], torch.ones(1), torch.ones(1)
        )


def test_gradients_have_the_announced_size():
    with pytest.raises(ValueError, match="expected a gradient of size 3 for w, got 2"):
        feed(Alignment(["a"], {"w": 3}), [torch.ones(1, 1)], [torch.ones(1, 1)], [True], torch.ones(2), torch.ones(2))


def test_batches_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    e, d = torch.randn(2, 6, 4, generator=generator)
    s = torch.randn(6, 3, generator=generator)
    whole, parts = Alignment(["a"], {"w": 12}), Alignment(["a"], {"w": 12})
    for metric, slices in ((whole, [slice(0, 6)]), (parts, [slice(0, 1), slice(1, 6)])):
        for rows in slices:
            feed(metric, [e[rows]], [d[rows]], [True] * len(e[rows]), e[rows].T @ s[rows], d[rows].T @ s[rows])
    for name, value in whole.compute().items():
        assert float(parts.compute()[name]) == pytest.approx(float(value), abs=1e-6)
