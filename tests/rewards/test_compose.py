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
