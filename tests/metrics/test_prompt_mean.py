"""PromptMean: each prompt counts once, however the data were split."""

import pickle

import pytest
import torch

from fklit.metrics.prompt_mean import PromptMean


def test_repeats_count_once_and_any_split_gives_the_same():
    values = {0: 1.0, 1: 5.0, 7: 3.0}
    for split in ([[0, 1, 7]], [[0], [1], [7]], [[0, 1], [7, 0]], [[7, 7], [1, 0, 1]]):
        metric = PromptMean()
        for indices in split:
            metric.update(torch.tensor(indices), torch.tensor([values[i] for i in indices]))
        assert float(metric.compute()) == 3.0


def test_infinities_are_omitted_and_nothing_is_nan():
    metric = PromptMean()
    assert metric.higher_is_better is None
    metric.update(torch.tensor([0, 1, 2]), torch.tensor([2.0, -torch.inf, torch.nan]))
    assert float(metric.compute()) == 2.0
    metric.reset()
    metric.update(torch.tensor([0]), torch.tensor([-torch.inf]))
    assert torch.isnan(metric.compute())


def test_keeps_float64_pickles_and_refuses_other_shapes():
    metric = pickle.loads(pickle.dumps(PromptMean()))
    metric.update(torch.tensor([2**40]), torch.tensor([1 / 3], dtype=torch.float64))
    assert float(metric.compute()) == 1 / 3
    with pytest.raises(ValueError, match=r"expected indices and values as \(B,\), got \(2,\), \(1,\)"):
        metric.update(torch.tensor([1, 2]), torch.tensor([1.0]))
