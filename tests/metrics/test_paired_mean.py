"""Gains of steered over unsteered samples: means and paired standard errors by hand, by label, without repetitions."""

import math
import pickle
import statistics

import pytest
import torch

from fklit.metrics import Gain, PairedMean

PAIRS = [[0.1, 0.5], [0.4, 0.3], [0.2, 0.9], [-math.inf, 0.2], [0.0, 0.1], [0.7, 0.2]]
LABELS = ["a", "b", "a", "a", "", "b"]


def fed(*parts):
    metric = PairedMean()
    for rows in parts:
        pairs = torch.tensor([PAIRS[row] for row in rows], dtype=torch.float64).reshape(-1, 2)
        metric.update(torch.tensor(rows, dtype=torch.int64), pairs, [LABELS[row] for row in rows])
    return metric


def by_hand(rows):
    differences = [PAIRS[row][1] - PAIRS[row][0] for row in rows]
    base, steered = (statistics.fmean(PAIRS[row][column] for row in rows) for column in (0, 1))
    error = statistics.stdev(differences) / math.sqrt(len(rows))
    return [len(rows), base, steered, statistics.fmean(differences), error]


@pytest.mark.parametrize("split", [[[0, 1, 2, 3, 4, 5]], [[5, 4, 3], [], [0, 1], [2, 0, 5]]])
def test_means_and_errors_by_hand(split):
    metric = pickle.loads(pickle.dumps(fed(*split)))
    found = metric.compute()
    assert list(found) == ["", "a", "b"]
    for label, rows in (("", [0, 1, 2, 4, 5]), ("a", [0, 2]), ("b", [1, 5])):
        assert found[label].tolist() == pytest.approx(by_hand(rows), rel=1e-12)
    gain = metric.gains()["b"]
    assert gain.num_prompts == 2 and gain.gain == pytest.approx(-0.3)


def test_what_is_decided():
    assert Gain(9, 0, 1, 1.0, 0.4).sign() == 1 and Gain(9, 1, 0, -1.0, 0.4).sign() == -1
    assert Gain(9, 0, 1, 1.0, 0.6).sign() == 0 == Gain(1, 0, 1, 1.0, math.nan).sign()
    assert Gain(7, 0, 1, 1.0, 0.0).sign() == 0 and Gain(8, 0, 1, 1.0, 0.0).sign() == 1
    assert fed([0]).gains()[""].sign() == 0 and fed([]).gains()[""].num_prompts == 0
    assert math.isnan(fed([3]).gains()["a"].gain)
