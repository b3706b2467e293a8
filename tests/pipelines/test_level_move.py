"""Moves between noise levels against Gaussian conditioning, for every kind of process."""

import itertools
import math

import pytest
import torch

from fklit.pipelines.level_move import move

LEVELS = {
    "variance preserving": ((0.6, 0.8), (0.8, 0.6)),
    "variance exploding": ((1.0, 5.0), (1.0, 2.0)),
    "flow": ((0.3, 0.7), (0.6, 0.4)),
    "from pure noise": ((0.0, 1.0), (0.6, 0.4)),
    "to no noise": ((0.3, 0.7), (1.0, 0.0)),
}


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_at_eta_1_it_is_the_posterior(levels):
    """q(x_s | x_t, x_0) by conditioning the joint Gaussian of x_s and x_t = ratio x_s + rest."""
    (scale, sigma), (next_scale, next_sigma) = levels
    sample, x0 = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(7, 2, 3, dtype=torch.float64)
    law = move(sample, x0, now=levels[0], after=levels[1], eta=1.0)
    ratio = scale / next_scale
    gain = ratio * next_sigma**2 / sigma**2
    torch.testing.assert_close(law.mean, next_scale * x0 + gain * (sample - scale * x0), atol=1e-12, rtol=1e-12)
    assert law.std**2 == pytest.approx(next_sigma**2 - gain * ratio * next_sigma**2, abs=1e-15)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_given_the_clean_sample_the_level_is_reached_whatever_eta(levels, eta):
    """x_t = a x_0 + s e makes x_s of mean a' x_0 and variance s'^2."""
    (scale, sigma), (next_scale, next_sigma) = levels
    x0, noise = torch.tensor([[1.7]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    center = move(scale * x0, x0, now=levels[0], after=levels[1], eta=eta)
    moved = move(scale * x0 + sigma * noise, x0, now=levels[0], after=levels[1], eta=eta)
    assert float(center.mean) == pytest.approx(next_scale * 1.7, rel=1e-12)
    assert float(moved.mean - center.mean) ** 2 + moved.std**2 == pytest.approx(next_sigma**2, abs=1e-14)
    assert (moved.std == 0) == (eta == 0 or next_sigma == 0)


def test_at_eta_0_two_moves_are_one_where_the_prediction_stays():
    sample, x0 = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    levels = [(0.3, 0.7), (0.5, 0.5), (0.9, 0.1)]
    half = move(sample, x0, now=levels[0], after=levels[1], eta=0.0).mean
    twice = move(half, x0, now=levels[1], after=levels[2], eta=0.0).mean
    torch.testing.assert_close(twice, move(sample, x0, now=levels[0], after=levels[2], eta=0.0).mean)


def test_of_gaussian_data_many_moves_sample_the_posterior():
    """x_0 ~ N(0, v) with its exact denoiser: mean and variance of x_0 given x_t, as the steps become many."""
    variance, scale, sigma, value = 2.0, math.sqrt(0.1), math.sqrt(0.9), 1.3

    def gain(a, s):  # E[x_0 | x] = gain x
        return a * variance / (a**2 * variance + s**2)

    errors = []
    for steps in (4, 16, 256):
        mean, spread = value, 0.0  # of x given x_t, a linear chain
        grid = [math.sqrt(0.1 + 0.9 * j / steps) for j in range(steps)]
        levels = [(a, math.sqrt(1 - a**2)) for a in grid]
        for now, after in itertools.pairwise(levels):
            one = torch.ones(1, 1, dtype=torch.float64)
            law = move(one, gain(*now) * one, now=now, after=after, eta=1.0)
            mean, spread = float(law.mean) * mean, float(law.mean) ** 2 * spread + law.std**2
        last = gain(*levels[-1])
        exact = variance * sigma**2 / (scale**2 * variance + sigma**2)
        errors.append((abs(last * mean - gain(scale, sigma) * value), abs(last**2 * spread - exact)))
    assert errors[0][1] > 2 * errors[1][1] and errors[2][0] < 0.01 and errors[2][1] < 0.02 * exact


@pytest.mark.parametrize("levels", [((0.8, 0.6), (0.6, 0.8)), ((0.8, 0.6), (0.8, 0.6)), ((1.0, 0.0), (1.0, 0.0))])
def test_noise_that_does_not_fall_is_refused(levels):
    with pytest.raises(ValueError, match="expected a noise level that falls, got scale and sigma"):
        move(torch.zeros(1, 1), torch.zeros(1, 1), now=levels[0], after=levels[1], eta=1.0)
