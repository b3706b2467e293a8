"""Drift controls: what they explain, what they leave alone, and what the weight gets for it."""

import pytest
import torch

from fklit.analytic import GaussianMixture
from fklit.correctors import FittedControl, GaussianControl, LinearSigma, Target
from fklit.correctors.simulation.control import gaussian_target

PATH = LinearSigma(0.1, 8.0)
INTERVAL = PATH.interval(0.5, 0.45)
EXPERTS = [
    GaussianMixture([[-1.0, 0.5], [1.0, -0.3]], [[0.4, 0.2], [0.3, 0.5]]).on(PATH),
    GaussianMixture([[0.3, -0.2]], 0.9).on(PATH),
]
TARGET = Target.product(EXPERTS, [1.5, 0.4])


def samples(groups, particles):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, particles, 2, dtype=torch.float64, generator=generator)
    return x, torch.randn(groups, particles, dtype=torch.float64, generator=generator)


def features(before):
    return torch.cat([1 + before.x * before.score, before.score], dim=2)


def weighted_std(values, log_weights):
    weights = torch.softmax(log_weights, dim=1)
    mean = (weights * values).sum(dim=1, keepdim=True)
    return (weights * (values - mean).square()).sum(dim=1).sqrt()


def test_increments_that_the_features_explain_become_constant():
    x, log_weights = samples(3, 40)
    before = TARGET.evaluate(x, 0.5)
    theta = torch.tensor([[0.3, -0.2, 0.1, 0.5], [1.0, 0.0, -0.4, 0.2], [0.0, 0.0, 2.0, 0.0]], dtype=torch.float64)
    increment = 1.7 - (features(before) @ theta.unsqueeze(2)).squeeze(2)
    shift, weight = FittedControl(ridge=0.0).shift(TARGET, before, INTERVAL, increment, log_weights)
    torch.testing.assert_close(shift, theta[:, None, :2] * x + theta[:, None, 2:], rtol=1e-5, atol=1e-5)
    assert weighted_std(increment + weight, log_weights).max() < 1e-5
    half, _ = FittedControl(ridge=0.0, strength=0.5).shift(TARGET, before, INTERVAL, increment, log_weights)
    torch.testing.assert_close(half, 0.5 * shift)
    ridge, _ = FittedControl(ridge=1.0).shift(TARGET, before, INTERVAL, increment, log_weights)
    assert 0.2 < float(ridge.norm() / shift.norm()) < 0.8


def test_the_fit_is_weighted_least_squares():
    x, log_weights = samples(2, 30)
    before = TARGET.evaluate(x, 0.5)
    increment = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shift, weight = FittedControl(ridge=0.0).shift(TARGET, before, INTERVAL, increment, log_weights)
    for b in range(2):
        root = torch.softmax(log_weights[b], dim=0).sqrt().unsqueeze(1)
        design = torch.cat([features(before)[b], torch.ones(30, 1, dtype=torch.float64)], dim=1)
        solution = torch.linalg.lstsq(root * design, root * -increment[b].unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(shift[b], solution[:2] * x[b] + solution[2:4], rtol=1e-5, atol=1e-6)
        divergence = solution[:2].sum()
        torch.testing.assert_close(
            weight[b], divergence + (shift[b] * before.score[b]).sum(dim=1), rtol=1e-5, atol=1e-6
        )


def test_the_ridge_is_relative_to_the_variance_of_each_feature():
    """With one feature, the penalty divides its coefficient by 1 + ridge."""
    x, log_weights = samples(1, 30)
    target = Target.annealed(GaussianMixture.single([0.3], 0.9).on(PATH), 2.0)
    x = x[..., :1]
    before = target.evaluate(x, 0.5)
    offset_only = before.score / before.score.std()
    before = before.__class__(torch.zeros_like(x), 0.5, before.exponents, before.scores, offset_only)
    increment = -offset_only.squeeze(2)
    for ridge in (0.0, 0.5, 3.0):
        shift, _ = FittedControl(ridge=ridge).shift(target, before, INTERVAL, increment, log_weights)
        torch.testing.assert_close(shift, torch.full_like(shift, 1 / (1 + ridge)), rtol=1e-6, atol=1e-6)


def test_a_feature_that_does_not_vary_gets_no_coefficient():
    """One particle, or a coordinate in which all agree, leaves the least squares singular."""
    x, log_weights = samples(1, 30)
    x[..., 1] = 0.7
    target = Target.annealed(GaussianMixture.single([0.3, -0.2], [0.9, 0.5]).on(PATH), 2.0)
    before = target.evaluate(x, 0.5)
    increment = -(before.x * before.score)[..., 0]
    slope, offset = FittedControl(ridge=0.0).coefficients(target, before, INTERVAL, increment, log_weights)
    torch.testing.assert_close(slope[..., 1].abs() + offset[..., 1].abs(), torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(slope[..., 0], torch.ones(1, 1, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    alone = target.evaluate(x[:, :1], 0.5)
    shift, _ = FittedControl(ridge=0.0).shift(target, alone, INTERVAL, increment[:, :1], log_weights[:, :1])
    assert torch.equal(shift, torch.zeros_like(shift))


def test_dead_particles_do_not_enter_a_fit():
    x, log_weights = samples(1, 30)
    increment = torch.randn(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    living = FittedControl().coefficients(
        TARGET, TARGET.evaluate(x[:, :20], 0.5), INTERVAL, increment[:, :20], log_weights[:, :20]
    )
    log_weights[:, 20:], x[:, 20:], increment[:, 20:] = -torch.inf, torch.nan, torch.nan
    before = TARGET.evaluate(x, 0.5, finite=False)
    torch.testing.assert_close(FittedControl().coefficients(TARGET, before, INTERVAL, increment, log_weights), living)


def test_pooled_groups_are_fitted_as_one():
    x, log_weights = samples(3, 20)
    increment = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pooled = FittedControl(pool_groups=True)
    slope, offset = pooled.coefficients(TARGET, TARGET.evaluate(x, 0.5), INTERVAL, increment, log_weights)
    one = x.reshape(1, 60, 2)
    normalized = torch.log_softmax(log_weights, dim=1).reshape(1, 60)  # every group counts alike
    alone = FittedControl().coefficients(
        TARGET, TARGET.evaluate(one, 0.5), INTERVAL, increment.reshape(1, 60), normalized
    )
    torch.testing.assert_close((slope, offset), tuple(part.expand(3, 1, 2) for part in alone))


def test_the_gaussian_surrogate_of_a_target():
    precision, mean = gaussian_target(TARGET, 0.5)
    scale, sigma = PATH.scale(0.5), PATH.sigma(0.5)
    parts = [expert.moments() for expert in EXPERTS]
    precisions = [1 / (scale**2 * variance + sigma**2) for _, variance in parts]
    torch.testing.assert_close(precision, 1.5 * precisions[0] + 0.4 * precisions[1])
    pull = scale * (1.5 * precisions[0] * parts[0][0] + 0.4 * precisions[1] * parts[1][0])
    torch.testing.assert_close(mean, pull / precision)


def test_the_closed_form_transports_the_gaussian_target():
    """The sampler's mean drift and the control move the surrogate at t to the surrogate at s."""
    target = Target.product([GaussianMixture.single([0.4, -0.3], [0.5, 1.2]).on(PATH), EXPERTS[1]], [1.5, 0.4])
    x, log_weights = samples(1, 5)
    before = target.evaluate(x, 0.5)
    shift, _ = GaussianControl().shift(target, before, INTERVAL, log_weights, log_weights)
    (old_precision, old_mean), (new_precision, new_mean) = (gaussian_target(target, t) for t in (0.5, 0.45))
    drift = INTERVAL.growth * x + 0.5 * INTERVAL.noise * before.score
    stretch = 0.5 * (old_precision / new_precision).log()
    torch.testing.assert_close(drift + shift, stretch * (x - old_mean) + new_mean - old_mean)


def test_a_surrogate_without_precision_is_refused():
    target = Target.product(EXPERTS, [1.5, -9.0])
    x, log_weights = samples(1, 5)
    with pytest.raises(ValueError, match=r"got none at t=0\.5; use FittedControl"):
        GaussianControl().shift(target, target.evaluate(x, 0.5), INTERVAL, log_weights, log_weights)


def test_an_isotropic_fit_has_one_slope():
    """Increments that one slope explains become constant, and turned coordinates get the turned displacement."""
    x, log_weights = samples(3, 40)
    before = TARGET.evaluate(x, 0.5)
    slope = torch.tensor([0.3, -0.7, 0.0], dtype=torch.float64)[:, None]
    increment = 1.7 - slope * (2 + (before.x * before.score).sum(dim=2))
    control = FittedControl(ridge=0.0, isotropic=True)
    shift, weight = control.shift(TARGET, before, INTERVAL, increment, log_weights)
    torch.testing.assert_close(shift, slope.unsqueeze(2) * x, rtol=1e-5, atol=1e-6)
    assert weighted_std(increment + weight, log_weights).max() < 1e-5
    law = GaussianMixture([[0.0, 0.0]], 0.9)
    target, turn = Target.annealed(law.on(PATH), 2.0), torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    shifts = [
        control.shift(target, target.evaluate(points, 0.5), INTERVAL, increment, log_weights)[0]
        for points in (x, x @ turn)
    ]
    torch.testing.assert_close(shifts[1], shifts[0] @ turn)
