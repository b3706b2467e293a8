"""Jump processes: weighted Kolmogorov equations and an enumerated masked world."""

import functools

import pytest
import torch
from enumerated_masks import PATH, Enumerated, distance

from fklit.correctors import Target
from fklit.correctors.discrete import (
    MaskedCorrector,
    exit_rates,
    exit_weight,
    log_target,
    masked_exit_weight,
    masked_weight,
    reverse_rates,
)
from fklit.feynman_kac import run

STATES = 6


def world():
    generator = torch.Generator().manual_seed(0)
    forward = 1.5 * torch.rand(STATES, STATES, generator=generator, dtype=torch.float64)
    forward = forward - torch.diag(forward.diagonal())
    starts = [torch.rand(STATES, generator=generator, dtype=torch.float64).square() + 0.1 for _ in range(3)]
    reward = torch.randn(STATES, generator=generator, dtype=torch.float64)
    return forward, [start / start.sum() for start in starts], reward


STEPS = 400


@functools.cache
def noised_laws():
    """Log laws of the three experts at every half step, (2 STEPS + 1, 3, states)."""
    forward, starts, _ = world()
    generator = forward - torch.diag(exit_rates(forward))
    half = torch.linalg.matrix_exp(generator / (2 * STEPS))
    laws = [torch.stack(starts)]
    for _ in range(2 * STEPS):
        laws.append(laws[-1] @ half)
    return torch.stack(laws).log()


CASES = {
    "annealing": lambda t: (1, [2.5], [0.0], 0.0, 0.0),
    "guidance": lambda t: (2, [-1.0, 2.0], [0.0, 0.0], 0.0, 0.0),
    "product": lambda t: (2, [1.0, 1.0], [0.0, 0.0], 0.0, 0.0),
    "three": lambda t: (3, [1.2, 0.5, -0.6], [0.0, 0.0, 0.0], 0.0, 0.0),
    "ramp": lambda t: (1, [2.0 - t], [1.0], 0.0, 0.0),
    "reward": lambda t: (2, [1.0, 0.5], [0.0, 0.0], 1.0 - t, 1.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("error", [1.0, 1.1])
def test_the_weighted_kolmogorov_equation_gives_the_unnormalized_target(name, error):
    """From noise to data, `dp = p R - p R_exit + w p` must reproduce prod q^beta exp(rho), normalizer and all."""
    forward, _, reward = world()

    def at(t):
        count, exponents, changes, scale, slope = CASES[name](t)
        laws = list(noised_laws()[round(2 * STEPS * t), :count])
        return laws, exponents, changes, scale * reward, slope * reward

    def slope_at(t, mass):
        laws, exponents, changes, tilt, tilt_rate = at(t)
        rates = reverse_rates(forward, log_target(laws, exponents, tilt))
        weight = exit_weight(forward, laws, exponents, exponent_rates=changes, tilt=tilt, tilt_rate=tilt_rate)
        return mass @ rates - mass * exit_rates(rates) + error * weight * mass

    def gamma(t):
        laws, exponents, _, tilt, _ = at(t)
        return log_target(laws, exponents, tilt).exp()

    mass, h = gamma(1.0), 1.0 / STEPS
    for k in range(STEPS):
        t = 1.0 - k * h
        first = slope_at(t, mass)
        second = slope_at(t - h / 2, mass + h / 2 * first)
        third = slope_at(t - h / 2, mass + h / 2 * second)
        fourth = slope_at(t - h, mass + h * third)
        mass = mass + h / 6 * (first + 2 * second + 2 * third + fourth)
    wrong = float(((mass - gamma(0.0)) / gamma(0.0)).abs().max())
    if error == 1.0:
        assert wrong < 1e-7
    else:
        assert wrong > 0.1  # a tenth too much weight is seen by far


def found_law(target, **settings):
    model = MaskedCorrector(target, PATH.grid(30), **settings)
    generator = torch.Generator().manual_seed(0)
    result = run(model, num_groups=4, num_particles=2500, ess_threshold=0.9, generator=generator)
    index = (result.samples["x"] * torch.tensor([16, 4, 1])).sum(dim=-1)
    weights = torch.softmax(result.log_weights, dim=1)
    law = torch.zeros(4, 64, dtype=torch.float64).scatter_add(1, index, weights)
    return law.mean(dim=0), result


def test_masked_guidance_against_enumeration():
    first, second = Enumerated(1, PATH), Enumerated(2, PATH)
    target, gamma = Target.guided(first, second, 2.0), first.law**2 / second.law
    law, result = found_law(target)
    heuristic, _ = found_law(target, corrected=False)
    assert distance(law, gamma) < 0.07
    assert distance(heuristic, gamma) > 0.15
    assert float((result.log_z - gamma.sum().log()).mean().abs()) < 0.1


def test_masked_annealing_against_enumeration():
    expert = Enumerated(1, PATH)
    law, result = found_law(Target.annealed(expert, 2.0))
    assert distance(law, expert.law**2) < 0.10
    assert float((result.log_z - (expert.law**2).sum().log()).mean().abs()) < 0.15


def test_a_black_box_reward_on_tokens():
    expert = Enumerated(1, PATH)
    target = Target.tilted(expert, lambda tokens: (tokens == 0).double().sum(dim=-1), 1.0, gradient=False)
    law, result = found_law(target)
    gamma = expert.law * (expert.states == 0).double().sum(dim=1).exp()
    assert distance(law, gamma) < 0.07
    assert float((result.log_z - gamma.sum().log()).mean().abs()) < 0.1


def test_small_steps_give_the_weight_of_exit_rates():
    masked = torch.tensor([[[True, False, True], [False, False, False]]])
    normalizer = torch.tensor([[[0.3, 0.0, -0.4], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    for total in (0.5, 1.0, 2.0):
        alpha, step = 0.4, 1e-6
        weight, _ = masked_weight(masked, normalizer, total=total, alpha_from=alpha, alpha_to=alpha * (1 + step))
        expected = masked_exit_weight(masked, normalizer, total=total, alpha=alpha)
        torch.testing.assert_close(weight / step, expected, rtol=1e-4, atol=1e-4)


def test_what_tokens_cannot_do_is_refused():
    expert = Enumerated(1, PATH)
    with pytest.raises(ValueError, match="tokens have no gradient"):
        MaskedCorrector(Target.tilted(expert, lambda x: x[..., 0]), PATH.grid(4))
    with pytest.raises(ValueError, match="changes in time"):
        MaskedCorrector(Target.annealed(expert, lambda t: 2.0 - t), PATH.grid(4))
    with pytest.raises(ValueError, match="still masked"):
        MaskedCorrector(Target.annealed(expert, 2.0), (1.0, 0.5))
    with pytest.raises(ValueError, match="positive sum"):
        MaskedCorrector(Target.product([expert, Enumerated(2, PATH)], [1.0, -1.0]), PATH.grid(4))
