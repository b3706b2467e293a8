"""What metrics of a sampling task get, and torchmetrics' own metrics on it."""

import pickle
from dataclasses import replace

import pytest
import torch
from torchmetrics import Metric
from torchmetrics.image import TotalVariation

from fklit.metrics import ChosenSamples, SampleBatch

SAMPLES = torch.rand(3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BATCH = SampleBatch(["a cat", "a dog", "a fox"], [{}] * 3, torch.tensor([2, 0, 3]), torch.tensor([4, 7, 9]))
LATER = replace(BATCH, indices=torch.tensor([5, 8, 9]))
CHOSEN = torch.stack([SAMPLES[0, 2], SAMPLES[1, 0], SAMPLES[2, 3]])


def test_choose_takes_one_slot_of_each_prompt():
    assert torch.equal(BATCH.choose(SAMPLES), CHOSEN)


def test_a_batch_with_other_numbers_is_refused():
    slots = torch.zeros(2, dtype=torch.int64)
    assert SampleBatch(["a", "b"], [{}, {}], slots, slots).chosen is slots
    with pytest.raises(ValueError, match=r"expected metadata for each of 2 prompts, got 1; give"):
        SampleBatch(["a", "b"], [{}], slots, slots)
    for wrong in (slots[:1], slots[:, None], slots.float(), slots.int()):
        with pytest.raises(ValueError, match=r"expected chosen as int64 \(2,\), got .*; give"):
            SampleBatch(["a", "b"], [{}, {}], wrong, slots)
        with pytest.raises(ValueError, match=r"expected indices as int64 \(2,\), got .*; give"):
            SampleBatch(["a", "b"], [{}, {}], slots, wrong)
    for wrong in (SAMPLES[:2], SAMPLES.flatten(0, 1)):
        with pytest.raises(ValueError, match=r"expected samples \(B, K, ...\) of B=3 prompts, got .*; give"):
            BATCH.choose(wrong)


def test_a_metric_of_torchmetrics_sees_the_chosen_samples():
    expected = TotalVariation()
    expected.update(CHOSEN)
    metric = ChosenSamples(TotalVariation())
    metric.update(SAMPLES, BATCH)
    assert torch.equal(metric.compute(), expected.compute())
    expected.update(CHOSEN)  # by the call of the metric below, whose value is that of its batch alone
    metric = pickle.loads(pickle.dumps(metric))
    assert torch.equal(metric(SAMPLES, BATCH), TotalVariation()(CHOSEN))
    assert torch.equal(metric.compute(), expected.compute())
    metric.reset()
    metric.update(SAMPLES, BATCH)
    assert torch.equal(metric.compute(), TotalVariation()(CHOSEN))


class TakesPrompts(Metric):
    def update(self, images, prompts):
        self.seen = (images, prompts)

    def compute(self):
        return torch.zeros(())


def test_prompts_are_passed_when_asked_for():
    inner = TakesPrompts()
    ChosenSamples(inner, pass_prompts=True).update(SAMPLES, BATCH)
    assert torch.equal(inner.seen[0], CHOSEN) and inner.seen[1] == ["a cat", "a dog", "a fox"]


def test_a_prompt_that_comes_again_is_handed_on_once():
    metric, expected = ChosenSamples(TotalVariation()), TotalVariation()
    expected.update(torch.cat([CHOSEN, CHOSEN[:2]]))
    for batch in (BATCH, BATCH, LATER):  # of the last, only 5 and 8 are new
        metric.update(SAMPLES, batch)
    assert torch.allclose(metric.compute(), expected.compute())
    metric.reset()
    metric.update(SAMPLES, BATCH)
    assert torch.equal(metric.compute(), TotalVariation()(CHOSEN))
    twice = SampleBatch(["a", "a"], [{}] * 2, torch.tensor([1, 2]), torch.tensor([3, 3]))
    metric = ChosenSamples(TotalVariation())
    metric.update(SAMPLES[:2], twice)
    assert torch.equal(metric.compute(), TotalVariation()(SAMPLES[0, 1][None]))


def test_the_chosen_sample_of_videos_and_waveforms():
    for shape in ((3, 4, 2, 3, 8, 8), (3, 4, 1, 20), (3, 4, 2)):
        samples = torch.rand(shape)
        assert torch.equal(BATCH.choose(samples)[1], samples[1, 0])
