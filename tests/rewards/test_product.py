"""Products of rewards."""

import math

import pytest
import torch

from fklit.rewards import Clipped, Function, Product, RewardError, Standardized
from fklit.rewards.testing import RewardTests

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def red(images):
    return images[:, 0].mean((1, 2))


def blue(images):
    return images[:, 2].mean((1, 2))


def given(*values):
    return Function(lambda images: list(values), max_batch=None)


class TestProduct(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return Product([Function(red, max_batch=max_batch), Function(blue, max_batch=max_batch)])


def test_values_and_range():
    reward = Product([Function(red, typical_range=(0.2, 0.5)), Function(blue, typical_range=(0.5, 2.0))])
    assert torch.equal(reward(IMAGES), red(IMAGES) * blue(IMAGES))
    assert reward.typical_range == (0.1, 1.0)
    assert Product([Function(red)]).typical_range is None
    assert Product([Function(red)] * 3)(IMAGES).tolist() == pytest.approx(red(IMAGES).pow(3).tolist())


def test_a_zero_silences_and_what_is_no_number_stays_none():
    reward = Product([given(0.0, math.nan, -math.inf, -math.inf), given(3.0, 2.0, 2.0, math.nan)])
    found = reward(IMAGES)
    assert found[0] == 0.0
    assert found[1].isnan()
    assert found[2] == -math.inf  # that particle dies
    assert found[3].isnan()


def test_negative_parts_are_refused():
    with pytest.raises(RewardError, match=r"got -0.5 from .* for sample 1; use Clipped\(reward, low=0\)"):
        Product([given(1.0, 2.0), given(1.0, -0.5)])(IMAGES[:2])
    with pytest.raises(ValueError, match=r"got Standardized\(.*red\) with a typical range from -5; use Clipped"):
        Product([Standardized(Function(red, typical_range=(0.0, 1.0)), mean=0.5, std=0.1)])
    clipped = Product([Clipped(given(1.0, -0.5), low=0), given(2.0, 2.0)])
    assert clipped(IMAGES[:2]).tolist() == [2.0, 0.0]
