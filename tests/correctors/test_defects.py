"""Defects of the method's reference code, which must not be ours (each was found by reading it)."""

import pytest
import torch
from mixtures import errors, experts, truth

from fklit.correctors import EDM, EulerMaruyama, Heun, Ramp, Rate, Target, VariancePreserving, simulate
from fklit.correctors.simulation.rate import dispersion_rate, rate
from fklit.feynman_kac import systematic

FIRST, SECOND, _ = experts()


class LongInterval(Rate):
    """The reference code's weight: the interval from the churned level."""

    def log_weight(self, target, move):
        return dispersion_rate(move.before, move.denoising_interval)


@pytest.mark.slow
def test_a_churn_counts_by_the_net_interval():
    first, second, _ = experts(EDM(0.02, 10.0))
    target = Target.guided(second, first, 2.0)
    settings = {"num_particles": 4000, "num_groups": 4, "num_steps": 100, "dtype": torch.float64, "ess_threshold": 1.0}
    exact = truth(target)
    ours = errors(simulate(target, proposal=Heun(0.1), **settings), exact)
    assert ours.w1.mean() < 0.05
    assert ours.log_z.mean().abs() < 0.1
    long = errors(simulate(target, proposal=Heun(0.1), increment=LongInterval(), **settings), exact)
    assert long.w1.mean() > 0.4


def test_the_score_of_the_weight_is_the_score_of_the_drift():
    """Defect 4: scores were clipped for the drift alone. Here both come from one evaluation, however large it is."""
    seen = []

    class Huge:
        path = VariancePreserving()
        event_shape = (1,)

        def score(self, x, t):
            seen.append(t)
            return -1e4 * x

    target = Target.annealed(Huge(), 2.0)
    x = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    before = target.evaluate(x, 0.5)
    interval = target.path.interval(0.5, 0.49)
    move = EulerMaruyama("ode").move(target, before, interval, interval, None, None)
    score = (move.x - x - interval.growth * x) / (0.5 * interval.noise)  # what the drift used: S_q = 2 s
    weight = rate(target, before, interval) + interval.growth
    torch.testing.assert_close(weight.squeeze(), 0.5 * interval.noise * 0.5 * score.square().squeeze())
    assert len(seen) == 1


@pytest.mark.parametrize("index", [0, 100_000, 199_999])
def test_dead_particles_have_no_offspring_at_any_size(index):
    """Defect 5: a floor of 1e-6 under probabilities gave the dead a fifth of all offspring."""
    log_weights = torch.full((1, 200_000), -60.0, dtype=torch.float64)
    log_weights[0, index] = 0.0
    ancestors = systematic(log_weights, torch.Generator().manual_seed(0))
    assert (ancestors == index).double().mean() >= 0.9999


@pytest.mark.slow
def test_the_birth_death_resampler_is_not_biased():
    """Defect 6: heirs were drawn by accumulated excess, with a variance error of 0.16 and more."""
    target = Target.guided(SECOND, FIRST, 2.0)
    run = simulate(
        target,
        num_particles=2000,
        num_groups=6,
        num_steps=300,
        resampler="birth_death",
        ess_threshold=1.0,
        dtype=torch.float64,
    )
    assert abs(errors(run, truth(target)).variance_bias) < 0.12


def test_exponents_that_change_weigh_by_the_log_density():
    """Defect 7: the bare derivative of beta was added, without log density and without the step."""
    target = Target.annealed(FIRST, Ramp(1.0, 2.0))
    x = torch.randn(1, 9, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = target.evaluate(x, 0.5, log_densities=True)
    interval = target.path.interval(0.5, 0.48)
    fixed = dispersion_rate(before, interval)
    torch.testing.assert_close(rate(target, before, interval) - fixed, 0.02 * FIRST.log_density(x, 0.5))


def test_weights_survive_between_resamplings():
    """Defect 8: all weights were reset at every step, whether or not anyone was resampled."""
    target = Target.guided(SECOND, FIRST, 2.0)
    run = simulate(target, num_particles=64, num_groups=3, num_steps=50, dtype=torch.float64, ess_threshold=0.0)
    assert run.log_weights.std(dim=1).min() > 0.1
    assert run.log_z.shape == (3,) and len(run.ess) == 51
    again = simulate(target, num_particles=64, num_groups=3, num_steps=50, dtype=torch.float64, ess_threshold=0.0)
    assert torch.equal(run.log_weights, again.log_weights)  # seeds of each group, nothing global
