"""Fitted curves against `log E[exp(scale r_0) | r_t = r]` in closed form."""

import math

import numpy as np
import pytest
import torch

from fklit.steering.calibration import Calibration, LinearCurve, LogisticCurve, fit_curve, fit_curves, held_out_loss


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_unbounded_gaussian_pairs_give_scale_times_slope(scale):
    """`r_0 = b r_t + noise`: `log E[exp(scale r_0) | r_t] = scale b r_t + constant`, whatever each prompt's level."""
    rng = _rng()
    scores = rng.normal(size=(6, 4000)) + rng.normal(size=(6, 1)) * 5
    rewards = 0.6 * scores + 0.7 * rng.normal(size=scores.shape) + rng.normal(size=(6, 1)) * 20
    curve = fit_curve(scores, rewards, scale=scale, bound=None)
    assert isinstance(curve, LinearCurve)
    assert curve.slope == pytest.approx(scale * 0.6, rel=0.05)


def test_a_bounded_reward_of_two_values_gives_the_logistic_it_was_drawn_from():
    """`exp(scale r_0)` is 1 with probability sigmoid(-1 + 0.7 s), else nearly 0: so is its conditional mean."""
    rng = _rng()
    logits = 2 * rng.normal(size=(50, 400))
    scores = -np.logaddexp(0, -logits)  # log sigmoid
    right = rng.uniform(size=logits.shape) < 1 / (1 + np.exp(1 - 0.7 * logits))
    rewards = np.where(right, 0.0, -10.0)
    for scale in (3.0, 8.0):
        curve = fit_curve(scores, rewards, scale=scale, bound=0.0)
        assert isinstance(curve, LogisticCurve)
        assert curve.intercept == pytest.approx(-1, abs=0.05) and curve.slope == pytest.approx(0.7, abs=0.03)
    exact = -np.logaddexp(0, 1 - 0.7 * logits)
    assert np.abs(curve(torch.from_numpy(scores)).numpy() - exact).max() < 0.3
    losses = [held_out_loss(scores, rewards, scale=8.0, bound=bound) for bound in (0.0, None)]
    assert losses[0] < losses[1]


def _parabola_pairs(alpha_bar: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the denoised mean m and final rewards of N(0, 1) data, with r = -(x - 1.5)^2 / 2 <= 0."""
    rng = _rng()
    mean = math.sqrt(alpha_bar) * rng.normal(size=(40, 500))
    final = mean + math.sqrt(1 - alpha_bar) * rng.normal(size=mean.shape)
    return -0.5 * (mean - 1.5) ** 2, -0.5 * (final - 1.5) ** 2


@pytest.mark.parametrize("alpha_bar", [0.3, 0.6, 0.9])
def test_a_reward_that_is_not_gaussian_in_closed_form(alpha_bar):
    """`E[exp(c r_0) | m] ~ exp(c r_t / (1 + c v))` exactly; the Gaussian formula is a multiple of that slope."""
    scale, variance = 2.0, 1 - alpha_bar
    scores, rewards = _parabola_pairs(alpha_bar)
    exact = scale / (1 + scale * variance)
    linear = fit_curve(scores, rewards, scale=scale, bound=None)
    assert linear.slope == pytest.approx(exact, rel=0.02)
    gaussian = scale * float(np.cov(scores.ravel(), rewards.ravel())[0, 1] / scores.var())
    assert abs(gaussian - exact) > 10 * abs(linear.slope - exact)
    # This reward is bounded, but no log probability: the family is chosen by prompts that were left out.
    made = Calibration(
        scores=torch.from_numpy(scores)[..., None],
        rewards=torch.from_numpy(rewards),
        steps=[0],
        num_steps=2,
        prompts=[""] * len(scores),
        upper_bound=0.0,
    )
    assert fit_curves(made, (0,), scale)[0] == linear
    assert isinstance(fit_curves(made, (0,), scale, family="logistic")[0], LogisticCurve)


def test_curves_are_finite_at_the_bound_and_kill_minus_infinity():
    scores = torch.tensor([0.0, -1e-14, -1.0, -1e4, -math.inf], dtype=torch.float64)
    curve = LogisticCurve(intercept=-2.0, slope=0.5, bound=0.0)(scores)
    assert torch.isfinite(curve[:4]).all() and curve[4] == -math.inf
    assert (curve.diff() <= 0).all() and curve[0] <= 0
    assert float(curve[2]) == pytest.approx(-math.log1p(math.exp(2 + 0.5 * math.log(math.expm1(1)))))
    for flat in (LogisticCurve(intercept=1.0, slope=0.0, bound=0.0), LinearCurve(0.0)):
        assert flat(scores)[4] == -math.inf and (flat(scores)[:4].diff() == 0).all()


@pytest.mark.parametrize("bound", [0.0, None])
def test_scores_that_say_nothing_or_the_opposite_give_flat_curves(bound):
    rng = _rng()
    rewards = -np.abs(rng.normal(size=(20, 30)))
    for scores in (np.full(rewards.shape, -1.0), -2 - rewards):
        curve = fit_curve(np.minimum(scores, 0.0), rewards, scale=4.0, bound=bound)
        assert curve.slope == 0.0
    noise = fit_curve(-np.abs(rng.normal(size=rewards.shape)), rewards, scale=1.0, bound=bound)
    assert noise.slope < 0.2


@pytest.mark.parametrize("bound", [0.0, None])
def test_dead_samples_are_left_out_or_worth_nothing(bound):
    rng = _rng()
    scores = -np.abs(rng.normal(size=(30, 40)))
    rewards = scores - np.abs(rng.normal(size=scores.shape))
    plain = fit_curve(scores, rewards, scale=2.0, bound=bound)
    wider = np.concatenate([scores, np.full((30, 5), -np.inf)], axis=1)
    same = fit_curve(wider, np.concatenate([rewards, rewards[:, :5]], axis=1), scale=2.0, bound=bound)
    if bound is not None:
        assert same.slope == pytest.approx(plain.slope, rel=1e-5)
    dead = rewards.copy()
    dead[:, :10] = -np.inf
    other = rewards.copy()
    other[:, :10] = -1e6
    assert fit_curve(scores, dead, scale=2.0, bound=bound).slope == pytest.approx(
        fit_curve(scores, other, scale=2.0, bound=bound).slope
    )
    nothing = fit_curve(np.full((3, 4), -np.inf), np.full((3, 4), -np.inf), scale=2.0, bound=bound)
    assert nothing.slope == 0.0
