"""Rewards made of rewards."""

import pytest
import torch

from fklit.rewards import Clipped, Function, Min, Standardized, WeightedSum
from fklit.rewards.testing import RewardTests


def red(images):
    return images[:, 0].mean((1, 2))


def blue(images):
    return images[:, 2].mean((1, 2))


def make(fn, span=(0.0, 1.0), max_batch=None):
    return Function(fn, typical_range=span, suggested_scale=5.0, max_batch=max_batch)


class TestWeightedSum(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return WeightedSum([make(red, max_batch=max_batch), make(blue, max_batch=max_batch)], [1.0, -2.0])


class TestMin(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return Min([make(red, max_batch=max_batch), make(blue, max_batch=max_batch)])


class TestStandardized(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return Standardized(make(red, max_batch=max_batch), mean=0.5, std=0.1)


class TestClipped(RewardTests):
    def make_reward(self, max_batch=None):
        return Clipped(make(red, max_batch=max_batch), low=0.2, high=0.5)


IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_values():
    a, b = red(IMAGES), blue(IMAGES)
    assert torch.allclose(WeightedSum([make(red), make(blue)], [1.0, -2.0])(IMAGES), a - 2 * b)
    assert torch.equal(Min([make(red), make(blue)])(IMAGES), torch.minimum(a, b))
    assert torch.allclose(Standardized(make(red), mean=0.5, std=0.1)(IMAGES), (a - 0.5) / 0.1)
    assert torch.equal(Clipped(make(red), high=0.5)(IMAGES), a.clamp(max=0.5))


def test_ranges_follow_the_parts():
    assert WeightedSum([make(red), make(blue)], [1.0, -2.0]).typical_range == (-2.0, 1.0)
    assert Min([make(red), make(blue, (0.2, 0.6))]).typical_range == (0.0, 0.6)
    assert Standardized(make(red), mean=0.5, std=0.25).typical_range == (-2.0, 2.0)
    assert Clipped(make(red), low=0.25).typical_range == (0.25, 1.0)
    assert Clipped(Function(red), low=0.0, high=1.0).typical_range == (0.0, 1.0)
    assert Clipped(Function(red), low=0.0).typical_range is None
    assert WeightedSum([Function(red)], [1.0]).typical_range is None


def test_a_zero_weight_silences_infinities():
    broken = Function(lambda images: torch.full((len(images),), float("inf")))
    assert torch.equal(WeightedSum([make(red), broken], [1.0, 0.0])(IMAGES), red(IMAGES))


def test_nan_is_not_clipped_away():
    assert Clipped(Function(lambda images: red(images) * float("nan")), low=0.0)(IMAGES).isnan().all()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: WeightedSum([], []), r"at least one Reward and nothing else, got \[\]"),
        (lambda: WeightedSum([red], [1.0]), r"at least one Reward and nothing else, got \['function'\]; wrap"),
        (lambda: WeightedSum([make(red)], [1.0, 2.0]), r"weight for each of 1 reward\(s\), got \[1.0, 2.0\]"),
        (lambda: WeightedSum([make(red)], [float("nan")]), r"a finite weight .*, got \[nan\]"),
        (lambda: Standardized(make(red), mean=0.0, std=0.0), "finite std above 0, got 0.0 and 0.0"),
        (lambda: Standardized(make(red), mean=float("inf"), std=1.0), "finite mean .*, got inf and 1.0"),
        (lambda: Standardized(make(red), mean=0.0, std=float("inf")), "finite std above 0, got 0.0 and inf"),
        (lambda: Clipped(make(red)), "expected low or high, got None for both"),
        (lambda: Clipped(make(red), low=1.0, high=0.0), "expected low below high, got low=1.0 and high=0.0"),
        (lambda: Clipped(make(red), low=1.0, high=1.0), "expected low below high, got low=1.0 and high=1.0"),
    ],
)
def test_wrong_arguments_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_standardized_from_samples_is_fixed_from_then_on():
    reward = Standardized.from_samples(make(red), IMAGES)
    scores = red(IMAGES)
    assert reward.mean == pytest.approx(float(scores.mean()), rel=1e-6)
    assert reward.std == pytest.approx(float(scores.std()), rel=1e-6)  # of a sample: over n - 1
    found = reward(IMAGES)
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(found.std()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(reward(IMAGES[:1]), found[:1])  # not estimated again
    lengths = Function(lambda images, prompts: [float(len(prompt)) for prompt in prompts])
    assert Standardized.from_samples(lengths, IMAGES, prompts=["a", "abc", "a", "abc"]).mean == 2.0


@pytest.mark.parametrize(
    ("reward", "count", "words"),
    [
        (make(red), 1, "expected at least 2 samples, got 1"),
        (Function(lambda images: torch.zeros(len(images))), 4, "that differ, got 0 for all 4 samples"),
        (Function(lambda images: torch.full((len(images),), 0.1)), 4, "that differ, got 0.1 for all 4 samples"),
        (Function(lambda images: [1.0, None, 2.0, None]), 4, r"got nan \(2 of 4 are not finite\)"),
        (Function(lambda images: [1.0, 3.0, 2.0, -torch.inf]), 4, r"got -inf \(1 of 4 are not finite\)"),
    ],
)
def test_samples_without_a_spread_are_refused(reward, count, words):
    with pytest.raises(ValueError, match=words):
        Standardized.from_samples(reward, IMAGES[:count])
