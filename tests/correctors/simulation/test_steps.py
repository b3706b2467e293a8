"""The corrector's bookkeeping by hand: deviation of weights, clamp, Ito densities, rewards, self-checks."""

import math
from dataclasses import replace

import pytest
import torch
from mixtures import experts

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    Corrector,
    EulerMaruyama,
    Heun,
    Ramp,
    ScoreModel,
    Target,
    VariancePreserving,
    ito_against_exact,
    simulate,
    zeta_independence,
)
from fklit.correctors.simulation.increment import Increment
from fklit.correctors.simulation.ito import carry_log_densities, initial_log_densities
from fklit.feynman_kac import group_generators

PATH = VariancePreserving()
FIRST, SECOND, _ = experts(PATH)
GRID = PATH.grid(5)
SETTINGS = {"num_particles": 6, "num_groups": 2, "num_steps": 8, "dtype": torch.float64}


class Given(Increment):
    """Weights of our choice."""

    def __init__(self, values):
        self.values = torch.tensor(values, dtype=torch.float64)

    def log_weight(self, target, move):
        return self.values


def one_step(values, log_weights, **settings):
    model = Corrector(Target.annealed(FIRST, 2.0), GRID, increment=Given(values), dtype=torch.float64, **settings)
    state = model.initial(1, len(values[0]), None)
    _, potential = model.step(state, 0, torch.tensor(log_weights, dtype=torch.float64), None)
    return model, potential


def test_the_standard_deviation_is_weighted():
    values, weights = [[1.0, 4.0, 2.0]], torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    model, potential = one_step(values, [(weights.log() + 7).tolist()])
    mean = float((weights * torch.tensor(values[0])).sum())
    wanted = math.sqrt(float((weights * (torch.tensor(values[0]) - mean).square()).sum()))
    assert float(model.log_weight_std[0]) == pytest.approx(wanted)
    assert potential.tolist() == values and model.clamped.tolist() == [0]


def test_dead_particles_do_not_count():
    model, potential = one_step([[1.0, 3.0, math.nan]], [[0.0, 0.0, -math.inf]], clamp=0.5)
    assert float(model.log_weight_std[0]) == 1.0
    assert potential[0, :2].tolist() == [1.5, 2.5]


def test_a_clamp_bounds_the_distance_from_the_mean():
    model, potential = one_step([[0.0, 1.0, 5.0, 2.0]], [[0.0] * 4], clamp=1.5)  # mean 2
    assert potential.tolist() == [[0.5, 1.0, 3.5, 2.0]] and model.clamped.tolist() == [2]
    model, _ = one_step([[0.0, 1.0, 5.0, 2.0]], [[0.0] * 4], clamp=2.0)
    assert model.clamped.tolist() == [1], "at the bound nothing is clamped"


def test_ito_estimates_follow_the_process():
    """`d log q = <s, dx> + (div f + <f, s> - g^2 / 2 |s|^2) dt` with f = c x."""
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(1, 4, 2)
    law = GaussianMixture([[0.3, -0.2]], [[0.5, 1.1]]).on(PATH)
    interval = PATH.interval(0.5, 0.48)
    target = Target.product([law, GaussianMixture.single([0.0, 1.0], 0.7).on(PATH)])
    before = target.evaluate(x, 0.5)
    new = 0.9 * x + 0.1
    start = target.log_densities(x, 0.5)
    found = carry_log_densities(before, start, interval, new)
    for score, old, carried in zip(before.scores, start, found, strict=True):
        # In time from noise to data dt is negative for the noising process, and c dt is minus the growth.
        drift = -interval.growth * x
        wanted = (score * (new - x)).sum(dim=2) - 2 * interval.growth + (drift * score).sum(dim=2)
        torch.testing.assert_close(carried, old + wanted - 0.5 * interval.noise * score.square().sum(dim=2))


def test_ito_estimates_start_from_what_is_known():
    x = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(1, 4, 1)
    exact = Target.product([FIRST, SECOND])
    torch.testing.assert_close(initial_log_densities(exact, x, 1.0), exact.log_densities(x, 1.0))
    mean, variance = torch.tensor([0.4]), torch.tensor([2.0])
    with_moments = ScoreModel(lambda x, t: x, PATH, event_shape=(1,), moments=(mean, variance)).given()
    bare = ScoreModel(lambda x, t: x, PATH, event_shape=(1,)).given()
    found = initial_log_densities(Target.product([with_moments, bare]), x, 0.7)
    scale, sigma = PATH.scale(0.7), PATH.sigma(0.7)
    known = torch.distributions.Normal(scale * 0.4, math.sqrt(2 * scale**2 + sigma**2)).log_prob(x).squeeze(2)
    noise = torch.distributions.Normal(0.0, sigma).log_prob(x).squeeze(2)
    torch.testing.assert_close(found, (known, noise), rtol=1e-6, atol=1e-6)


def test_carried_densities_weigh_the_change_of_exponents():
    target = Target.annealed(FIRST, Ramp(1.0, 2.0), log_density="ito")
    model = Corrector(target, GRID, dtype=torch.float64)
    generators = group_generators(0, 1)
    state = model.initial(1, 5, generators)
    torch.testing.assert_close(state["log_q"], target.log_densities(state["x"], 1.0))
    moved = {**state, "log_q": (state["log_q"][0] + torch.arange(5.0),)}
    (_, plain), (after, higher) = (
        model.step(given, 0, torch.zeros(1, 5, dtype=torch.float64), group_generators(1, 1)) for given in (state, moved)
    )
    torch.testing.assert_close(higher - plain, 0.2 * torch.arange(5.0, dtype=torch.float64).unsqueeze(0))
    before = replace(target.evaluate(state["x"], 1.0), log_densities=None)
    wanted = carry_log_densities(before, moved["log_q"], model.intervals[0], after["x"])
    torch.testing.assert_close(after["log_q"], wanted)


@pytest.mark.parametrize("reward_input", ["denoised", "sample"])
def test_a_black_box_scores_predictions_on_the_way_and_samples_at_the_end(reward_input):
    seen = []

    def reward(x):
        seen.append(x.clone())
        return x[..., 0]

    scale = Ramp(0.5, 1.5)
    target = Target.tilted(FIRST, reward, scale, gradient=False, reward_input=reward_input)
    model = Corrector(target, PATH.grid(2), dtype=torch.float64, proposal=EulerMaruyama("ode"))
    state = model.initial(1, 3, None)
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    middle, first = model.step(state, 0, zeros, None)
    end, second = model.step(middle, 1, zeros, None)

    def scored(x, t):
        if reward_input == "sample":
            return x
        return FIRST.law.denoised(x, PATH.scale(t), PATH.sigma(t))

    inputs = scored(state["x"], 1.0), scored(middle["x"], 0.5), end["x"]
    torch.testing.assert_close(seen, list(inputs))
    tilts = [factor * x[..., 0] for factor, x in zip((0.5, 1.0, 1.5), inputs, strict=True)]
    torch.testing.assert_close(first, tilts[0])
    torch.testing.assert_close(second, tilts[2] - tilts[0], rtol=1e-9, atol=1e-9)
    assert model.budget.reward_calls == 9


def test_terminal_potentials_score_only_the_end():
    target = Target.tilted(FIRST, lambda x: x[..., 0], 2.0, gradient=False, potential="terminal")
    run = simulate(target, ess_threshold=0.0, proposal=EulerMaruyama("ode"), **SETTINGS)
    assert run.budget.reward_calls == 12
    plain = simulate(Target.annealed(FIRST, 1.0), ess_threshold=0.0, proposal=EulerMaruyama("ode"), **SETTINGS)
    assert torch.equal(run.samples, plain.samples)
    wanted = plain.log_weights + 2.0 * plain.samples[..., 0]
    torch.testing.assert_close(run.log_weights, wanted - torch.logsumexp(wanted, dim=1, keepdim=True))


def test_a_heun_run_weighs_churns_by_the_end_of_the_step_before():
    target = Target.annealed(FIRST, 2.0)
    model = Corrector(target, PATH.grid(10), dtype=torch.float64, proposal=Heun(0.2))
    generators = group_generators(0, 1)
    state = model.initial(1, 4, generators)
    zeros = torch.zeros(1, 4, dtype=torch.float64)
    assert state["previous_dispersion"] is None
    state, _ = model.step(state, 0, zeros, generators)
    dispersion = target.evaluate(state["x"], model.intervals[0].s).score_dispersion
    assert state["previous_dispersion"].shape == (1, 4) and not torch.equal(state["previous_dispersion"], dispersion)
    more = {**state, "previous_dispersion": state["previous_dispersion"] + 1.0}
    steps = [model.step(given, 1, zeros, group_generators(1, 1))[1] for given in (state, more)]
    t = model.intervals[1].t
    length = math.log(1.2)  # of the churn in the log of the level
    wanted = torch.full((1, 4), -0.5 * length * PATH.sigma(t) ** 2, dtype=torch.float64)
    torch.testing.assert_close(steps[1] - steps[0], wanted)


def test_the_zeta_check_compares_weighted_means():
    settings = {**SETTINGS, "num_groups": 3}
    target = Target.annealed(FIRST, 0.5)
    check = zeta_independence(target, zetas=(0.7, 1.3), seed=4, **settings)
    runs = [
        simulate(target, proposal=EulerMaruyama(z), generator=group_generators(4, 3, stream=f"zeta {n}"), **settings)
        for n, z in enumerate((0.7, 1.3))
    ]
    for number, run in enumerate(runs):
        weights = run.log_weights.exp().unsqueeze(2)
        moments = (weights * torch.cat([run.samples, run.samples.square()], dim=2)).sum(dim=1)
        torch.testing.assert_close(check.means[number], moments.mean(dim=0))
        torch.testing.assert_close(check.errors[number], moments.std(dim=0) / 3**0.5)
        torch.testing.assert_close(check.ess[number], run.ess[-1].mean() / 6)
    gaps = (check.means[0] - check.means[1]).abs() / (check.errors[0].square() + check.errors[1].square()).sqrt()
    assert check.zetas == (0.7, 1.3) and check.deviation == pytest.approx(float(gaps.max()))
    assert check.consistent(check.deviation, resolution=1.0) and not check.consistent(check.deviation)
    assert not check.consistent(0.99 * check.deviation, resolution=1.0)
    one = zeta_independence(target, zetas=(0.7, 1.3), seed=4, observable=lambda x: x[..., 0], **settings)
    torch.testing.assert_close(one.means[:, 0], check.means[:, 0])
    with pytest.raises(ValueError, match="at least two values"):
        zeta_independence(target, zetas=(1.0,), **settings)
    with pytest.raises(ValueError, match="omit them"):
        zeta_independence(target, proposal=EulerMaruyama(), **settings)


def test_the_ito_check_follows_plain_paths():
    target = Target.product([FIRST, SECOND])
    check = ito_against_exact(target, num_particles=5, num_steps=4, seed=2)
    model = Corrector(target, PATH.grid(4), dtype=torch.float64)
    generators = group_generators(2, 1)
    x = model.initial(1, 5, generators)["x"]
    carried = target.log_densities(x, 1.0)
    for interval in model.intervals:
        before = target.evaluate(x, interval.t)
        x = EulerMaruyama().move(target, before, interval, interval, None, generators).x
        carried = carry_log_densities(before, carried, interval, x)
    errors = [(a - b)[0] for a, b in zip(carried, target.log_densities(x, 0.0), strict=True)]
    torch.testing.assert_close(check.bias, torch.stack([error.mean() for error in errors]))
    torch.testing.assert_close(check.rms, torch.stack([error.square().mean().sqrt() for error in errors]))
    with pytest.raises(ValueError, match="nothing to compare with"):
        ito_against_exact(Target.annealed(ScoreModel(lambda x, t: x, PATH, event_shape=(1,)).given(), 2.0))
