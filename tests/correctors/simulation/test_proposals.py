"""Each proposal's step by hand: means, variances, order, churn."""

import math

import pytest
import torch
from mixtures import experts

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    EDM,
    EulerMaruyama,
    Heun,
    LinearFlow,
    ProposalError,
    Ramp,
    ReverseKernel,
    Target,
    VariancePreserving,
)
from fklit.feynman_kac import normals

PATH = VariancePreserving()
FIRST, SECOND, _ = experts(PATH)
X = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 7, 1)
INTERVAL = PATH.interval(0.5, 0.4)


def generator():
    return torch.Generator().manual_seed(0)


def wave(x):
    return torch.sin(x).squeeze(-1)


@pytest.mark.parametrize("zeta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("tilted", [False, True])
def test_a_step_of_euler_maruyama(zeta, tilted):
    target = Target.guided(SECOND, FIRST, 2.0)
    gradient = torch.zeros_like(X)
    if tilted:
        target, gradient = Target.tilted(target, wave, 0.7), 0.7 * torch.cos(X)
    shift = 0.1 * X
    move = EulerMaruyama(zeta, split=False).move(
        target, target.evaluate(X, 0.5), INTERVAL, INTERVAL, shift, generator()
    )
    score = 2 * SECOND.score(X, 0.5) - FIRST.score(X, 0.5)
    half = 0.5 * PATH.noise(0.5, 0.4)
    scaled = (1 + PATH.log_scale(0.4) - PATH.log_scale(0.5)) * X
    mean = scaled + half * score + zeta**2 * half * (score + gradient) + shift
    noise = normals(generator(), X.shape, dtype=torch.float64)
    torch.testing.assert_close(move.x, mean + zeta * math.sqrt(2 * half) * noise)
    if zeta == 0:
        assert move.mean is None and move.variance is None
    else:
        torch.testing.assert_close(move.mean, mean)
        assert move.variance == pytest.approx(zeta**2 * 2 * half)


def test_names_and_functions_of_zeta():
    annealed, product = Target.annealed(FIRST, 4.0), Target.product([FIRST, SECOND], [Ramp(1.0, 2.0), Ramp(1.0, 2.0)])
    levels = {"target_score": 1.0, "ode": 0.0, "tempered_noise": 0.5, 0.3: 0.3}
    for zeta, level in levels.items():
        assert EulerMaruyama(zeta).noise_level(annealed, 0.5) == level
        assert EulerMaruyama(zeta).has_kernel == (level > 0)
    assert not EulerMaruyama(0).has_kernel
    assert EulerMaruyama("tempered_noise").noise_level(product, 0.5) == pytest.approx(1.5**-0.5)
    assert EulerMaruyama(lambda t: 2 * t).noise_level(annealed, 0.4) == 0.8
    nearly = Target.product([FIRST, SECOND], [1.0, 1.0 + 1e-12])
    assert EulerMaruyama("tempered_noise").noise_level(nearly, 0.5) == 1.0
    with pytest.raises(ProposalError, match="the same positive number"):
        EulerMaruyama("tempered_noise").noise_level(Target.product([FIRST, SECOND], [-1.0, -1.0]), 0.5)
    with pytest.raises(ValueError, match=r"zeta at t=0\.5"):
        EulerMaruyama(lambda t: -t).check(annealed, [INTERVAL])
    with pytest.raises(ValueError, match="zeta"):
        EulerMaruyama(-0.1)


@pytest.mark.parametrize("path", [EDM(0.02, 10.0), PATH, LinearFlow()], ids=lambda path: type(path).__name__)
def test_a_heun_step_is_that_of_karras(path):
    """Algorithm 2 of arXiv 2206.00364 in y = x / a, where the level takes the place of the time."""
    law = GaussianMixture([[-1.0], [1.5]], [0.2, 0.4])
    target, interval = Target.annealed(law.on(path), 1.3), path.interval(0.5, 0.4)
    high, low = path.level(0.5), path.level(0.4)
    shift = 0.1 * X

    def slope(y, level):
        return -level * 1.3 * law.score(y, 1.0, level)

    y = X / path.scale(0.5)
    first = slope(y, high)
    euler = y + (low - high) * first
    for control in (None, shift):
        moved = 0 if control is None else control
        one = Heun(0.0, second_order=False).move(target, target.evaluate(X, 0.5), interval, interval, control, None)
        torch.testing.assert_close(one.x, euler * path.scale(0.4) + moved)
        assert one.after is None
        two = Heun(0.0).move(target, target.evaluate(X, 0.5), interval, interval, control, None)
        second = slope(euler + moved / path.scale(0.4), low)
        torch.testing.assert_close(two.x, (y + (low - high) * 0.5 * (first + second)) * path.scale(0.4) + moved)
        torch.testing.assert_close(two.after.x, euler * path.scale(0.4) + moved)
        assert two.after.t == 0.4 and two.mean is None


def test_a_churn_is_a_draw_of_the_forward_kernel():
    path = EDM(0.02, 10.0)
    interval = path.interval(0.5, 0.4)
    target = Target.annealed(GaussianMixture([[0.0]], 1.0).on(path), 1.0)
    x, longer = Heun(0.3).prepare(target, X, interval, generator())
    top = path.time_at(1.3 * path.level(0.5))
    noise = normals(generator(), X.shape, dtype=torch.float64)
    added = math.sqrt(path.sigma(top) ** 2 - path.sigma(0.5) ** 2)
    torch.testing.assert_close(x, X + added * noise)
    assert longer == path.interval(top, 0.4) and path.level(top) == pytest.approx(1.3 * path.level(0.5))
    scaled, _ = Heun(0.3).prepare(Target.annealed(FIRST, 1.0), X, INTERVAL, generator())
    ratio, variance = PATH.forward(0.5, PATH.time_at(1.3 * PATH.level(0.5)))
    torch.testing.assert_close(scaled, ratio * X + math.sqrt(variance) * noise)


def test_where_there_is_no_churn():
    path = EDM(0.02, 10.0)
    interval, level = path.interval(0.5, 0.4), path.level(0.5)
    target = Target.annealed(GaussianMixture([[0.0]], 1.0).on(path), 1.0)
    for heun in (Heun(0.0), Heun(0.3, lowest=1.01 * level), Heun(0.3, highest=0.99 * level)):
        x, same = heun.prepare(target, X, interval, None)
        assert x is X and same is interval
    for heun in (Heun(0.3, lowest=level), Heun(0.3, highest=level)):
        assert heun.prepare(target, X, interval, generator())[1].t > 0.5
    top = path.interval(1.0, 0.9)
    assert Heun(0.3).prepare(target, X, top, None) == (X, top)
    nearly = path.interval(0.99, 0.9)
    assert Heun(0.9).prepare(target, X, nearly, generator())[1].t == pytest.approx(1.0)
    for wrong in ({"lowest": 1.0, "highest": 1.0}, {"lowest": -1.0}):
        with pytest.raises(ValueError, match="expected 0 <= lowest < highest"):
            Heun(**wrong)


@pytest.mark.parametrize("exponents", [(2.0, -1.0), (1.4, 0.8)])
def test_a_reverse_kernel_is_the_normalized_product(exponents):
    """Mean and variance of `prod_i N(x'; mu_i, v)^beta_i K(x | x')^(1 - B)` by quadrature over x'."""
    target = Target.product([FIRST, SECOND], list(exponents))
    ratio, variance = PATH.scale(0.5) / PATH.scale(0.4), INTERVAL.variance
    grid = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    means = [(X + variance * expert.score(X, 0.5)) / ratio for expert in (FIRST, SECOND)]
    squares = sum(e * (grid - mean).square() for e, mean in zip(exponents, means, strict=True))
    squares = squares + (1 - sum(exponents)) * (X - ratio * grid).square()
    weights = torch.softmax(-squares / (2 * variance), dim=2)
    mean = (weights * grid).sum(dim=2, keepdim=True)
    spread = (weights * (grid - mean).square()).sum(dim=2, keepdim=True)
    move = ReverseKernel().move(target, target.evaluate(X, 0.5), INTERVAL, INTERVAL, None, generator())
    torch.testing.assert_close(move.mean, mean)
    torch.testing.assert_close(torch.full_like(spread, move.variance), spread)
    noise = normals(generator(), X.shape, dtype=torch.float64)
    torch.testing.assert_close(move.x, mean + move.variance**0.5 * noise)
    tilted = Target.tilted(target, wave, 0.5)
    drawn = ReverseKernel().move(tilted, tilted.evaluate(X, 0.5), INTERVAL, INTERVAL, None, generator())
    torch.testing.assert_close(drawn.mean, mean + move.variance * 0.5 * torch.cos(X))


def test_the_exponents_of_a_reverse_kernel_are_those_of_the_step_s_end():
    ramp, fixed = Target.annealed(FIRST, Ramp(1.0, 2.0)), Target.annealed(FIRST, 1.6)
    moves = [ReverseKernel().move(t, t.evaluate(X, 0.5), INTERVAL, INTERVAL, None, generator()) for t in (ramp, fixed)]
    torch.testing.assert_close(moves[0].x, moves[1].x)


def test_the_posterior_variance_is_that_of_the_bridge():
    """Of x_s given x_t and x_0; for one expert whose data are one point the kernel is then exact."""
    point = 0.7
    path = EDM(0.02, 10.0)
    target = Target.annealed(GaussianMixture([[point]], 1e-12).on(path), 1.0)
    interval = path.interval(0.5, 0.4)
    high, low = path.sigma(0.5) ** 2, path.sigma(0.4) ** 2
    move = ReverseKernel("posterior").move(target, target.evaluate(X, 0.5), interval, interval, None, generator())
    assert move.variance == pytest.approx(low * (high - low) / high)
    torch.testing.assert_close(move.mean, X + (high - low) / high * (point - X))
    last = path.interval(0.5, 0.4).__class__(0.5, 0.4, 0.0, 0.0, 1.0, 0.0)
    still = ReverseKernel().move(target, target.evaluate(X, 0.5), last, last, None, generator())
    assert still.mean is None and still.variance is None and torch.equal(still.x, X)
