"""Split noise: its step by hand, and the order of its error on Gaussian data, weights included."""

import math
from itertools import pairwise

import pytest
import torch
from mixtures import experts

import fklit.correctors.simulation.euler_maruyama as euler
import fklit.correctors.simulation.split_noise as module
from fklit.analytic import GaussianMixture
from fklit.correctors import (
    EDM,
    EulerMaruyama,
    LinearFlow,
    ProposalError,
    Ramp,
    Rate,
    ScoreModel,
    SplitNoise,
    Target,
    VariancePreserving,
    simulate,
)
from fklit.feynman_kac import normals

VP = VariancePreserving()
PATHS = [EDM(0.02, 10.0, 3.0), VP, LinearFlow()]
X = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 7, 1)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_a_step(path):
    """In y = x / a: half of the noise, the whole drift by the scores at the level where the step starts, half again."""
    first, second, _ = experts(path)
    target, interval = Target.guided(second, first, 2.0), path.interval(0.5, 0.4)
    variance = path.level(0.5) ** 2 - path.level(0.4) ** 2
    half, other = (normals(noise, X.shape, dtype=torch.float64) for noise in [generator()] * 2)
    noise = generator()
    x, same = SplitNoise().prepare(target, X, interval, noise)
    assert same == interval
    middle = X / path.scale(0.5) + math.sqrt(variance / 2) * half
    torch.testing.assert_close(x, middle * path.scale(0.5))
    for shift in (None, 0.1 * X):
        noise = generator()
        SplitNoise().prepare(target, X, interval, noise)
        move = SplitNoise().move(target, target.evaluate(x, 0.5), interval, interval, shift, noise)
        score = 2 * second.score(x, 0.5) - first.score(x, 0.5)  # of x; that of y is a times it
        wanted = middle + variance * path.scale(0.5) * score + math.sqrt(variance / 2) * other
        torch.testing.assert_close(move.x, wanted * path.scale(0.4) + (0 if shift is None else shift))
        assert move.mean is None and move.interval.noise == pytest.approx(variance * path.scale(0.5) ** 2)
        assert (move.interval.t, move.interval.s, move.interval.growth) == (0.5, 0.4, interval.growth)


def variance_left(path, proposal, steps, spread, monkeypatch, beta=1.0):
    """Relative error of the weighted variance at the end for Gaussian data, starting from the exact one.

    The steps are linear in x and the noise, and the log weights quadratic in x, so that the law stays a Gaussian.
    """
    law, drawn = GaussianMixture([[0.0]], [spread]), []
    target = Target.annealed(law.on(path), beta)
    for place in (module, euler):
        monkeypatch.setattr(place, "normals", lambda *args, **kwargs: torch.full((1, 1, 1), drawn.pop(0)).double())

    def step(interval, start, *noises):
        drawn[:] = noises
        x, _ = proposal.prepare(target, torch.full((1, 1, 1), start).double(), interval, None)
        move = proposal.move(target, target.evaluate(x, interval.t), interval, interval, None, None)
        return float(x), float(move.x), float(Rate().log_weight(target, move))

    times = path.grid(steps, start=0.6, stop=0.05)
    variance = (path.scale(0.6) ** 2 * spread + path.sigma(0.6) ** 2) / beta
    for t, s in pairwise(times):
        interval = path.interval(t, s)
        rest, (_, slope, weight) = step(interval, 0.0, 0.0, 0.0)[2], step(interval, 1.0, 0.0, 0.0)
        before, after = (step(interval, 0.0, *noises) for noises in ((1.0, 0.0), (0.0, 1.0)))
        if before[0] == 0:  # all noise comes after the drift
            before, after = (0.0, 0.0), before
        weighted = 1 / (1 / (variance + before[0] ** 2) - 2 * (weight - rest))
        variance = slope**2 * weighted + after[1] ** 2
    return variance * beta / (path.scale(0.05) ** 2 * spread + path.sigma(0.05) ** 2) - 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_a_single_model_is_of_second_order(path, spread, monkeypatch):
    errors = [variance_left(path, SplitNoise(), steps, spread, monkeypatch) for steps in (100, 200, 400)]
    assert 3.4 < errors[0] / errors[1] < 4.6 and 3.6 < errors[1] / errors[2] < 4.4
    plain = variance_left(path, EulerMaruyama(), 200, spread, monkeypatch)
    assert abs(errors[1]) < 0.2 * abs(plain)


@pytest.mark.parametrize("beta", [0.5, 4 / 3, 2.0, 3.0])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_so_is_an_annealed_model_with_its_weights(beta, spread, monkeypatch):
    path = EDM(0.02, 10.0, 3.0)
    errors = [variance_left(path, SplitNoise(), steps, spread, monkeypatch, beta) for steps in (200, 400, 800)]
    assert 3.2 < errors[0] / errors[1] < 4.8 and 3.5 < errors[1] / errors[2] < 4.5
    plain = variance_left(path, EulerMaruyama(), 400, spread, monkeypatch, beta)
    assert abs(errors[1]) < 0.2 * abs(plain)


def test_the_share_of_the_noise():
    first, second, _ = experts(VP)
    shares = {0.25: 1.0, 0.5: 1.0, 1.0: 0.5, 2.0: 0.25}
    for beta, share in shares.items():
        assert SplitNoise().share(Target.annealed(first, beta), 0.5) == pytest.approx(share)
    assert SplitNoise().share(Target.guided(second, first, 3.0), 0.5) == pytest.approx(0.5)
    assert SplitNoise().share(Target.product([first, second], [1.0, -1.0]), 0.5) == 1.0
    ramp = Target.annealed(first, Ramp(1.0, 3.0))
    assert SplitNoise().share(ramp, 0.5) == pytest.approx(0.5 / sum(ramp.exponents(0.5)))


def test_products_of_unlike_models_are_weighed_right():
    """Both samplers, with few steps and many: the split one is nearer to the exact mean and variance with few."""
    first, second = GaussianMixture([[-1.0]], [0.02]), GaussianMixture([[0.5]], [0.3])
    target = Target.product([first.on(PATHS[0]), second.on(PATHS[0])], [0.5, 0.5])
    precision = 0.5 / 0.02 + 0.5 / 0.3
    mean = (0.5 * -1.0 / 0.02 + 0.5 * 0.5 / 0.3) / precision
    errors = {}
    for proposal in (SplitNoise(), EulerMaruyama()):
        found = simulate(
            target, num_particles=20_000, num_groups=4, num_steps=60, proposal=proposal, dtype=torch.float64, seed=1
        )
        weights = found.log_weights.softmax(dim=1).unsqueeze(2)
        middle = (weights * found.samples).sum(dim=1, keepdim=True)
        variance = (weights * (found.samples - middle).square()).sum(dim=1).mean()
        errors[type(proposal)] = float(variance) * precision - 1
        assert float(middle.mean()) == pytest.approx(mean, abs=0.02)
    assert abs(errors[SplitNoise]) < 0.6 * errors[EulerMaruyama]


def test_what_it_does_not_do():
    plain = Target.annealed(experts(VP)[0], 2.0)
    tilted = Target.tilted(plain, lambda x: -x.square().sum(dim=-1), 1.0)
    with pytest.raises(ProposalError, match="without a differentiable tilt"):
        simulate(tilted, num_particles=4, num_steps=4, proposal=SplitNoise())
    network = ScoreModel(lambda x, t: -x, VP, event_shape=(1,), moments=(0.0, 1.0)).given()
    ramp = Target.annealed(network, Ramp.late(2.0))
    with pytest.raises(ValueError, match=r"needs zeta = 1 .* SplitNoise\(\); use EulerMaruyama"):
        simulate(ramp, num_particles=4, num_steps=4, proposal=SplitNoise())
