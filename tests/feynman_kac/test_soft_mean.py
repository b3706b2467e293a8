"""The soft mean of several draws: the log of the mean of exponentials, stable at every scale."""

import math

import pytest
import torch

from fklit.feynman_kac.soft_mean import soft_mean


def test_it_is_the_log_of_the_mean_of_exponentials():
    rewards = torch.tensor([[[1.0, 2.0], [-math.inf, 0.0], [math.nan, 0.0], [math.inf, 0.0]]], dtype=torch.float64)
    found = soft_mean(rewards, 2.0)
    assert float(found[0, 0]) == pytest.approx(math.log((math.e**2 + math.e**4) / 2) / 2, rel=1e-12)
    assert float(found[0, 1]) == pytest.approx(math.log(0.5) / 2, rel=1e-12) and found[0, 2:].isnan().all()
    assert soft_mean(rewards[:, :1], 0.0).tolist() == [[1.5]]
    assert soft_mean(torch.full((1, 1, 3), -math.inf, dtype=torch.float64), 2.0).tolist() == [[-math.inf]]


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e-3, 1.0, 1e3, 1e300])
def test_no_scale_is_too_small_or_too_large(scale):
    rewards = torch.tensor([[[0.3, 0.1, -0.7]]], dtype=torch.float64)
    if scale <= 1e-3:  # mean + scale variance / 2
        expected, tolerance = float(rewards.mean()) + scale * float(rewards.var(correction=0)) / 2, scale**2 + 1e-15
    elif scale >= 1e3:
        expected, tolerance = 0.3 - math.log(3) / scale, 1e-12
    else:
        expected, tolerance = math.log(sum(map(math.exp, rewards.flatten().tolist())) / 3), 1e-14
    assert float(soft_mean(rewards, scale)) == pytest.approx(expected, abs=tolerance)


def test_of_one_draw_it_is_the_reward_bit_for_bit():
    rewards = torch.randn(50, 3, 1, dtype=torch.float64) * 1e3
    for scale in (0.0, 1e-9, 0.1, 7.0, 1e9):
        assert torch.equal(soft_mean(rewards, scale), rewards[:, :, 0])
