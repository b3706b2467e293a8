"""Exponents in time, tilts, and evaluations of targets."""

import math

import pytest
import torch
from mixtures import experts

from fklit.correctors import BlackBoxTilt, Ramp, ScoreModel, Target, Tilt, VariancePreserving
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.exponents import check_exponent, complement, times, value_at

FIRST, SECOND, _ = experts()
X = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3, 1)


def test_a_ramp():
    ramp = Ramp(1.0, 3.0, start=0.8, stop=0.3)
    found = [ramp(t) for t in (1.0, 0.8, 0.7, 0.55, 0.3, 0.1)]
    assert found == pytest.approx([1.0, 1.0, 1.4, 2.0, 3.0, 3.0])
    assert Ramp.late(3.0) == Ramp(1.0, 3.0, start=0.6, stop=0.0)
    Ramp(0.0, 1.0, start=1.0, stop=0.0)
    for wrong in ({"start": 1.1}, {"stop": -0.1}, {"start": 0.4, "stop": 0.4}):
        with pytest.raises(ValueError, match="expected 0 <= stop < start <= 1"):
            Ramp(1.0, 2.0, **wrong)


def test_arithmetic_of_exponents():
    ramp = Ramp(1.0, 3.0)
    assert times(2.0, 0.5) == 1.0 and complement(3.0) == -2.0
    assert times(ramp, 2.0)(0.5) == times(2.0, ramp)(0.5) == 4.0 and times(ramp, ramp)(0.5) == 4.0
    assert complement(ramp)(0.5) == -1.0
    assert value_at(ramp, 0.5) == 2.0 and value_at(2, 0.5) == 2.0
    assert check_exponent("beta", 2) == 2.0 and check_exponent("beta", ramp) is ramp
    for wrong in (True, math.inf, "hot"):
        with pytest.raises(TypeError, match="beta="):
            check_exponent("beta", wrong)


def test_the_dispersion_of_scores():
    generator = torch.Generator().manual_seed(0)
    scores = tuple(torch.randn(2, 3, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    exponents = (1.5, -0.4, 0.7)
    combined = sum(e * s for e, s in zip(exponents, scores, strict=True))
    found = Evaluation(scores[0], 0.5, exponents, scores, combined).score_dispersion
    squares = sum(e * s.square().sum(dim=2) for e, s in zip(exponents, scores, strict=True))
    torch.testing.assert_close(found, combined.square().sum(dim=2) - squares)
    same = Evaluation(scores[0], 0.5, (2.0, -1.0), (scores[0],) * 2, scores[0]).score_dispersion
    assert torch.equal(same, torch.zeros(2, 3, dtype=torch.float64)), "no cancellation where the experts agree"


def test_a_tilt_and_its_gradient():
    def reward(x):
        return torch.sin(x).squeeze(-1)

    for gradient in (None, torch.cos):
        tilt = Tilt(reward, Ramp(0.0, 2.0), gradient)
        value, slope = tilt.reward_and_gradient(X, 0.25)
        torch.testing.assert_close((value, slope), (reward(X), 1.5 * torch.cos(X)))
        torch.testing.assert_close(tilt.value(X, 0.25), 1.5 * reward(X))
    target = Target.tilted(FIRST, reward, 0.5)
    before = target.evaluate(X, 0.5)
    torch.testing.assert_close(before.total_score, before.score + 0.5 * torch.cos(X))
    torch.testing.assert_close((before.reward, before.tilt), (reward(X), 0.5 * reward(X)))
    torch.testing.assert_close(target.log_gamma(X, 0.5), FIRST.log_density(X, 0.5) + 0.5 * reward(X))
    assert target.evaluate(X, 0.5, tilt=False).tilt_gradient is None
    with pytest.raises(ValueError, match="a gradient of the samples' shape"):
        Tilt(reward, gradient=reward).reward_and_gradient(X, 0.5)


def test_black_boxes():
    tilt = BlackBoxTilt(lambda x: x[..., 0], Ramp(0.0, 2.0))
    assert tilt.scale_at(0.25) == 1.5 and torch.equal(tilt.score(X), X[..., 0])
    with pytest.raises(ValueError, match="reward_input='noise'"):
        BlackBoxTilt(lambda x: x, reward_input="noise")
    with pytest.raises(TypeError, match="got reward=3"):
        BlackBoxTilt(3)
    with pytest.raises(ValueError, match="time_dependent=True"):
        Target.tilted(FIRST, lambda x: x, gradient=False, time_dependent=True)


def test_what_is_known_of_a_target():
    path = VariancePreserving()
    bare = ScoreModel(lambda x, t: x, path).given()
    shaped = ScoreModel(lambda x, t: x, path, event_shape=[3, 2], moments=(torch.zeros(2), torch.ones(2))).given()
    mixed, known = Target.product([bare, shaped, FIRST]), Target.product([FIRST, SECOND, FIRST])
    assert mixed.event_shape == (3, 2) and Target.annealed(bare, 2.0).event_shape is None
    assert not mixed.has_log_densities and known.has_log_densities
    assert not mixed.has_moments and Target.product([shaped, FIRST]).has_moments
    assert known.experts == (FIRST, SECOND) and known.path == path
    assert known.exponents_change((1.0, 0.5)) is False
    late = Target.annealed(FIRST, Ramp.late(2.0, start=0.5))
    assert not late.exponents_change((1.0, 0.5)) and late.exponents_change((1.0, 0.5, 0.4))


def test_densities_come_with_scores():
    target = Target.product([FIRST, SECOND], [2.0, -1.0])
    before = target.evaluate(X, 0.5, log_densities=True)
    densities = [expert.log_density(X, 0.5) for expert in (FIRST, SECOND)]
    torch.testing.assert_close(before.log_densities, tuple(densities))
    torch.testing.assert_close(before.scores, (FIRST.score(X, 0.5), SECOND.score(X, 0.5)))
    assert target.evaluate(X, 0.5).log_densities is None
    torch.testing.assert_close(target.log_gamma(X, 0.5), 2 * densities[0] - densities[1])


def test_networks_get_their_own_time():
    seen = []

    def network(x, time):
        seen.append(time)
        return x

    path = VariancePreserving()
    for time, wanted in ((None, 0.25), (lambda path, t: 1000 * t + path.beta_min, 250.1)):
        ScoreModel(network, path, time=time).given().score(X.float(), 0.25)
        torch.testing.assert_close(seen.pop(), torch.full((6,), wanted))
    ScoreModel(network, path, prediction="edm").given().score(X.float(), 0.25)
    torch.testing.assert_close(seen.pop(), torch.full((6,), path.level(0.25)))
