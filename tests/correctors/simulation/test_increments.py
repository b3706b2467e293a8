"""Each increment by hand: trapezoids of Heun, normalizers by quadrature, ratios of densities."""

import math
from dataclasses import replace

import pytest
import torch
from mixtures import experts
from torch.distributions import Normal

from fklit.correctors import (
    EDM,
    EulerMaruyama,
    ExactRatio,
    Heun,
    IncompatibleError,
    KernelWeight,
    LinearFlow,
    Ramp,
    Rate,
    ReverseKernel,
    Target,
    Uncorrected,
    VariancePreserving,
)
from fklit.correctors.simulation.kernel_weight import kernel_weight
from fklit.correctors.simulation.proposal import Move
from fklit.correctors.simulation.rate import rate
from fklit.correctors.simulation.reverse_kernel import reverse_mean

PATH = VariancePreserving()
FIRST, SECOND, _ = experts(PATH)
X = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 7, 1)
INTERVAL = PATH.interval(0.5, 0.4)


def generator():
    return torch.Generator().manual_seed(0)


def wave(x):
    return torch.sin(x).squeeze(-1)


def with_dispersion(evaluation, value):
    """The same evaluation, with a dispersion of our choice."""
    known = replace(evaluation)
    known.__dict__["score_dispersion"] = torch.full(evaluation.x.shape[:2], value, dtype=torch.float64)
    return known


@pytest.mark.parametrize("path", [EDM(0.02, 10.0), PATH, LinearFlow()], ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("ends", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, -1.0, 0.5)])
def test_each_end_of_heun_s_trapezoids(path, ends):
    """`sigma^2 |.|` is linear in the log level: its half integral over denoising, less that over the churn."""
    first, second, _ = experts(path)
    target = Target.product([first, second], [1.5, 0.7])
    t, s, top = 0.5, 0.4, 0.55
    churned, finish, previous = ends
    before = with_dispersion(target.evaluate(X, top), churned / path.sigma(top) ** 2)
    after = with_dispersion(target.evaluate(X, s), finish / path.sigma(s) ** 2)
    last = torch.full(X.shape[:2], previous / path.sigma(t) ** 2, dtype=torch.float64)
    interval, denoising = path.interval(t, s), path.interval(top, s)
    move = Move(before, interval, X, denoising, after=after)
    divergence = -(1.5 + 0.7 - 1) * (path.log_scale(s) - path.log_scale(t))
    length = {a: math.log(path.level(a) / path.level(s)) for a in (top, t)}
    wanted = 0.5 * (churned + finish) * length[top]
    one_end = 0.5 * path.noise(top, t) * churned / path.sigma(top) ** 2
    shape = torch.ones(X.shape[:2], dtype=torch.float64)
    torch.testing.assert_close(Rate().log_weight(target, move), shape * (divergence + wanted - one_end))
    both = wanted - 0.5 * (churned + previous) * (length[top] - length[t])
    move = replace(move, previous_dispersion=last)
    torch.testing.assert_close(Rate().log_weight(target, move), shape * (divergence + both))
    move = replace(move, before=with_dispersion(before, previous / path.sigma(t) ** 2), denoising_interval=interval)
    plain = 0.5 * (previous + finish) * length[t]
    torch.testing.assert_close(Rate().log_weight(target, move), shape * (divergence + plain))


def test_steps_without_a_second_evaluation_count_by_their_start():
    target = Target.annealed(FIRST, 2.0)
    before = target.evaluate(X, 0.5)
    move = Move(before, INTERVAL, X, INTERVAL)
    torch.testing.assert_close(Rate().log_weight(target, move), rate(target, before, INTERVAL))
    shifted = replace(move, shift_weight=torch.full((1, 7), 0.3, dtype=torch.float64))
    torch.testing.assert_close(Rate().log_weight(target, shifted), rate(target, before, INTERVAL) + 0.3)
    assert torch.equal(Uncorrected().log_weight(target, move), torch.zeros(1, 7, dtype=torch.float64))


def test_a_reward_changes_by_its_scale():
    tilt = Target.tilted(FIRST, wave, Ramp(0.0, 1.0)).tilt
    torch.testing.assert_close(tilt.change(X, wave(X), 0.5, INTERVAL), (0.6 - 0.5) * wave(X))


def test_a_time_dependent_reward_is_scored_at_both_ends_of_the_step():
    seen = []

    def timed(x, t):
        seen.append(t)
        return math.cos(t) * wave(x)

    tilt = Target.tilted(FIRST, timed, Ramp(0.0, 1.0), time_dependent=True).tilt
    wanted = (0.6 * math.cos(0.4) - 0.5 * math.cos(0.5)) * wave(X)
    torch.testing.assert_close(tilt.change(X, math.cos(0.5) * wave(X), 0.5, INTERVAL), wanted)
    assert seen == [0.4], "what is known at the start is not scored again"
    torch.testing.assert_close(tilt.change(X, torch.zeros(1, 7), 0.7, INTERVAL), wanted)  # after a churn
    assert seen == [0.4, 0.5, 0.4]


@pytest.mark.parametrize("exponents", [(2.0, -1.0), (1.4, 0.8), (0.3,)])
def test_a_kernel_weight_is_the_log_of_the_integral(exponents):
    x, means = X, [X + 0.3, 0.5 * X - 0.1][: len(exponents)]
    ratio, variance = INTERVAL.ratio, INTERVAL.variance
    grid = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    deviation = torch.tensor(variance, dtype=torch.float64).sqrt()
    logs = sum(e * Normal(mean, deviation).log_prob(grid) for e, mean in zip(exponents, means, strict=True))
    logs = logs + (1 - sum(exponents)) * Normal(ratio * grid, deviation).log_prob(x)
    wanted = torch.logsumexp(logs, dim=2) + math.log(24 / 24000)
    torch.testing.assert_close(kernel_weight(x, means, exponents, INTERVAL), wanted)


def test_the_reverse_mean_is_the_mean_of_the_posterior():
    """Tweedie's formula for one step of the noise, against the quadrature of Bayes' rule."""
    grid = torch.linspace(-8, 8, 16001, dtype=torch.float64).reshape(1, -1, 1)
    deviation = torch.tensor(INTERVAL.variance, dtype=torch.float64).sqrt()
    logs = FIRST.log_density(grid, INTERVAL.s) + Normal(INTERVAL.ratio * grid, deviation).log_prob(X.mT).mT.squeeze(0)
    wanted = (torch.softmax(logs, dim=1) * grid.squeeze(-1)).sum(1)
    found = reverse_mean(X, FIRST.score(X, INTERVAL.t), INTERVAL)
    torch.testing.assert_close(found.flatten(), wanted)


def test_a_tilted_kernel_is_weighed_by_the_ratio_of_kernels():
    plain = Target.product([FIRST, SECOND], [Ramp(1.0, 2.0), 0.5])
    tilted = Target.tilted(plain, wave, Ramp(0.2, 1.0))
    before = tilted.evaluate(X, 0.5, log_densities=True)
    move = ReverseKernel().move(tilted, before, INTERVAL, INTERVAL, None, generator())
    untilted = ReverseKernel().move(plain, before_of(plain), INTERVAL, INTERVAL, None, generator())
    deviation = move.variance**0.5
    ratio = Normal(untilted.mean, deviation).log_prob(move.x) - Normal(move.mean, deviation).log_prob(move.x)
    change = (0.2 + 0.8 * 0.6) * wave(move.x) - (0.2 + 0.8 * 0.5) * wave(X)
    wanted = KernelWeight().log_weight(plain, untilted) + change + ratio.squeeze(-1)
    torch.testing.assert_close(KernelWeight().log_weight(tilted, move), wanted)
    variance = INTERVAL.variance
    means = [(X + variance * expert.score(X, 0.5)) / INTERVAL.ratio for expert in (FIRST, SECOND)]
    fixed = kernel_weight(X, means, (1.6, 0.5), INTERVAL) + 0.1 * FIRST.log_density(X, 0.5)
    torch.testing.assert_close(KernelWeight().log_weight(plain, untilted), fixed)


def before_of(target):
    return target.evaluate(X, 0.5, log_densities=True)


@pytest.mark.parametrize("proposal", [EulerMaruyama(0.8, split=False), ReverseKernel("posterior")], ids=repr)
@pytest.mark.parametrize("tilted", [False, True])
def test_an_exact_ratio_is_one(proposal, tilted):
    target = Target.product([FIRST, SECOND], [Ramp(1.0, 2.0), -0.5])
    target = Target.tilted(target, wave, Ramp(0.2, 1.0)) if tilted else target
    before = before_of(target)
    move = proposal.move(target, before, INTERVAL, INTERVAL, None, generator())
    backward = Normal(move.mean, move.variance**0.5).log_prob(move.x).squeeze(-1)
    forward = Normal(INTERVAL.ratio * move.x, INTERVAL.variance**0.5).log_prob(X).squeeze(-1)
    wanted = target.log_gamma(move.x, 0.4) - target.log_gamma(X, 0.5) + forward - backward
    torch.testing.assert_close(ExactRatio().log_weight(target, move), wanted)


def test_a_step_without_noise_has_no_exact_ratio():
    target = Target.annealed(FIRST, 2.0)
    move = Heun(0.0).move(target, before_of(target), INTERVAL, INTERVAL, None, None)
    with pytest.raises(IncompatibleError, match=r"got one without from t=0\.5 to 0\.4"):
        ExactRatio().log_weight(target, move)


def test_which_increments_need_log_densities():
    assert [ExactRatio().needs_log_densities(c) for c in (False, True)] == [True, True]
    assert [Uncorrected().needs_log_densities(c) for c in (False, True)] == [False, False]
    for increment in (Rate(), KernelWeight()):
        assert [increment.needs_log_densities(c) for c in (False, True)] == [False, True]
