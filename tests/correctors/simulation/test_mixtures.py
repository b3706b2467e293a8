"""Annealing, guidance, products and rewards on one-dimensional mixtures, against quadrature.

The numbers of the heuristic samplers are part of the tests: where the correction does nothing, they would pass too.
"""

import pytest
import torch
from mixtures import GRID, SPACING, errors, experts, truth

from fklit.correctors import (
    EulerMaruyama,
    ExactRatio,
    FittedControl,
    GaussianControl,
    LinearFlow,
    Ramp,
    Rate,
    ReverseKernel,
    Target,
    Uncorrected,
    simulate,
)
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.simulation.rate import dispersion_rate
from fklit.feynman_kac import normals

SETTINGS = {"num_particles": 4000, "num_groups": 4, "num_steps": 400, "dtype": torch.float64}
QUICK = {"num_particles": 1500, "num_groups": 4, "num_steps": 150, "dtype": torch.float64}
FIRST, SECOND, THIRD = experts()
GUIDED = Target.guided(SECOND, FIRST, 2.0)


def test_guidance_is_corrected_and_the_heuristic_is_not():
    exact = truth(GUIDED)
    assert exact.mean == pytest.approx(-0.6471, abs=1e-4) and exact.variance == pytest.approx(0.7282, abs=1e-4)
    heuristic = errors(simulate(GUIDED, increment=Uncorrected(), **QUICK), exact)
    corrected = errors(simulate(GUIDED, ess_threshold=1.0, **QUICK), exact)
    assert heuristic.w1.mean() > 0.2
    assert corrected.w1.mean() < 0.05 and corrected.variance < 0.10
    assert corrected.log_z.mean().abs() < 0.15


@pytest.mark.slow
def test_a_control_keeps_annealing_alive_without_resampling():
    target = Target.annealed(FIRST, 2.5)
    exact = truth(target)
    assert exact.mean == pytest.approx(0.4883, abs=1e-4) and exact.variance == pytest.approx(1.5190, abs=1e-4)
    plain = simulate(target, ess_threshold=0.0, **QUICK)
    fitted = simulate(target, ess_threshold=0.0, control=FittedControl(), **QUICK)
    closed = simulate(target, ess_threshold=0.0, control=GaussianControl(), **QUICK)
    assert plain.ess[-1].mean() / 1500 < 0.05
    assert fitted.ess[-1].mean() / 1500 >= 0.35
    assert closed.ess[-1].mean() / 1500 >= 0.35
    assert errors(fitted, exact).w1.mean() < 0.08
    assert errors(fitted, exact).log_z.mean().abs() < 0.05


@pytest.mark.slow
def test_targets_of_the_table():
    """Every row of the table, plain and with control: mean W1 over four seeds."""
    rows = [
        (Target.annealed(FIRST, 0.5), 0.10, 0.05, 1.0),
        (Target.geometric_average([FIRST, SECOND]), 0.06, 0.06, 0.04),
        (Target.product([FIRST, SECOND]), 0.20, 0.07, 0.10),
        (Target.annealed(Target.product([FIRST, SECOND]), 2.0), 0.40, 0.10, 0.15),
        (Target.product([FIRST, SECOND, THIRD], [1.2, 0.8, -0.5]), 0.07, 0.07, 0.25),
    ]
    for target, plain_bound, control_bound, heuristic_floor in rows:
        exact = truth(target)
        plain = errors(simulate(target, ess_threshold=1.0, **SETTINGS), exact)
        controlled = errors(simulate(target, control=FittedControl(), ess_threshold=0.5, **SETTINGS), exact)
        assert plain.w1.mean() < plain_bound
        assert controlled.w1.mean() < control_bound
        assert controlled.log_z.mean().abs() < 0.05
        assert errors(simulate(target, increment=Uncorrected(), **SETTINGS), exact).w1.mean() > heuristic_floor


@pytest.mark.slow
def test_log_z_of_plain_runs():
    for target, bound in ((GUIDED, 0.15), (Target.annealed(FIRST, 2.0), 0.4)):
        found = errors(simulate(target, ess_threshold=1.0, **SETTINGS), truth(target))
        assert found.log_z.mean().abs() < bound


@pytest.mark.slow
def test_the_flow_matching_path():
    path = LinearFlow(start=0.995, stop=0.002)
    first, second, _ = experts(path)
    target = Target.guided(second, first, 2.0)
    exact = truth(target, 0.002)
    assert exact.mean == pytest.approx(-0.6458, abs=1e-4) and exact.variance == pytest.approx(0.7253, abs=1e-4)
    settings = {**SETTINGS, "num_steps": 300}
    assert errors(simulate(target, increment=Uncorrected(), **settings), exact).w1.mean() > 0.2
    assert errors(simulate(target, control=FittedControl(), **settings), exact).w1.mean() < 0.05
    assert errors(simulate(target, **settings), exact).w1.mean() < 0.05


def wave(x):
    return (-2 * (x - 0.3).square() + 1.5 * torch.sin(3 * x)).squeeze(-1)


def wave_gradient(x):
    return -4 * (x - 0.3) + 4.5 * torch.cos(3 * x)


def test_a_reward_with_a_gradient():
    target = Target.tilted(FIRST, wave, Ramp(0.0, 1.0), gradient=wave_gradient)
    exact = truth(target)
    assert exact.mean == pytest.approx(0.5907, abs=1e-4) and exact.variance == pytest.approx(0.0809, abs=1e-4)
    heuristic = errors(simulate(target, increment=Uncorrected(), **QUICK), exact)
    corrected = errors(simulate(target, **QUICK), exact)
    assert heuristic.w1.mean() > 0.1
    assert corrected.w1.mean() < 0.03 and corrected.log_z.mean().abs() < 0.15


def test_autograd_gives_the_same_bits_as_the_gradient_in_closed_form():
    settings = {"num_particles": 8, "num_groups": 2, "num_steps": 20, "dtype": torch.float64}
    closed = simulate(Target.tilted(FIRST, wave, Ramp(0.0, 1.0), gradient=wave_gradient), **settings)
    auto = simulate(Target.tilted(FIRST, wave, Ramp(0.0, 1.0)), **settings)
    torch.testing.assert_close(auto.samples, closed.samples)
    torch.testing.assert_close(auto.log_weights, closed.log_weights)


def test_a_black_box_reward_by_differences():
    target = Target.tilted(FIRST, wave, Ramp(0.0, 1.0), gradient=False)
    exact = truth(Target.tilted(FIRST, wave, Ramp(0.0, 1.0)))
    found = errors(simulate(target, ess_threshold=0.5, **QUICK), exact)
    assert found.w1.mean() < 0.05 and found.log_z.mean().abs() < 0.15


@pytest.mark.slow
def test_a_reward_on_top_of_guidance_in_one_run():
    """Corrector and FK-steering potential together, black box and gradient, on one target."""
    exact = truth(Target.tilted(GUIDED, wave, Ramp(0.0, 1.0)))
    for target in (
        Target.tilted(GUIDED, wave, Ramp(0.0, 1.0)),
        Target.tilted(GUIDED, wave, Ramp(0.0, 1.0), gradient=False),
    ):
        assert errors(simulate(target, ess_threshold=0.5, **SETTINGS), exact).w1.mean() < 0.05


class NoLogDensity(Rate):
    """Negative control: the change of the exponents is left out."""

    def needs_log_densities(self, changing):
        return False

    def log_weight(self, target, move):
        return dispersion_rate(move.before, move.interval)


@pytest.mark.slow
def test_exponents_that_change_in_time():
    exact = truth(Target.annealed(FIRST, 2.0))
    assert exact.mean == pytest.approx(0.4146, abs=1e-4) and exact.variance == pytest.approx(1.6315, abs=1e-4)
    settings = {**SETTINGS, "num_groups": 8, "num_particles": 2000, "num_steps": 300}
    target = Target.annealed(FIRST, Ramp(1.0, 2.0))
    assert errors(simulate(target, **settings), exact).w1.mean() < 0.14
    ito = Target.annealed(FIRST, Ramp(1.0, 2.0), log_density="ito")
    assert errors(simulate(ito, **settings), exact).w1.mean() < 0.14
    omitted = errors(simulate(target, increment=NoLogDensity(), ess_threshold=0.5, **settings), exact)
    assert omitted.w1.mean() > 0.15


class LeftPointEuler(Proposal):
    """The textbook's step, with drift and diffusion of the interval's noisy end times its length."""

    def move(self, target, before, interval, denoising_interval, shift, generator):
        path, h = target.path, interval.t - interval.s
        noise = path.diffusion(interval.t) * h
        mean = before.x - path.drift(interval.t) * h * before.x + noise * before.score
        new = mean + noise**0.5 * normals(generator, mean.shape, dtype=mean.dtype)
        return Move(before, interval, new, denoising_interval)


class LeftPointRate(Rate):
    """Its weight."""

    def log_weight(self, target, move):
        interval = move.interval
        return 0.5 * target.path.diffusion(interval.t) * (interval.t - interval.s) * move.before.score_dispersion


@pytest.mark.slow
def test_few_steps():
    exact = truth(GUIDED)
    settings = {**SETTINGS, "num_groups": 8, "num_steps": 15, "ess_threshold": 0.5}
    textbook = errors(simulate(GUIDED, proposal=LeftPointEuler(), increment=LeftPointRate(), **settings), exact)
    kernel = errors(simulate(GUIDED, proposal=ReverseKernel(), **settings), exact)
    ratio = errors(simulate(GUIDED, proposal=ReverseKernel(), increment=ExactRatio(), **settings), exact)
    exact_noise = errors(simulate(GUIDED, **settings), exact)
    assert textbook.w1.mean() > 0.25
    assert kernel.w1.mean() < 0.15 and kernel.w1.mean() < 0.5 * textbook.w1.mean()
    assert exact_noise.w1.mean() < 0.5 * textbook.w1.mean()  # whole intervals instead of their noisy ends
    assert ratio.w1.mean() < 0.05
    assert ratio.log_z.mean().abs() < 0.05


@pytest.mark.slow
def test_groups_approach_the_target_as_they_grow():
    """One draw by weight from each of many groups of K particles."""
    exact = truth(GUIDED)
    wanted = exact.mass.cumsum(0)
    found = []
    for size in (1, 8, 16):
        run = simulate(
            GUIDED,
            num_particles=size,
            num_groups=3000,
            num_steps=150,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(0),
        )
        draws = run.sample(1, seed=1).flatten().sort().values
        share = torch.searchsorted(draws, GRID, right=True).double() / len(draws)
        found.append(float((share - wanted).abs().sum() * SPACING))
    assert found[0] > found[1] > found[2]
    assert found[0] > 0.2 and found[2] < 0.06


def test_noise_of_any_size_samples_the_same_target():
    from fklit.correctors.simulation.diagnostics import zeta_independence

    settings = {"num_particles": 400, "num_groups": 5, "num_steps": 100, "zetas": (0.7, 1.3), "dtype": torch.float64}
    target = Target.annealed(FIRST, 0.5)
    right = zeta_independence(target, **settings)
    assert right.consistent() and right.means.shape == (2, 2)
    assert not zeta_independence(target, increment=Uncorrected(), **settings).consistent()


def test_ito_log_densities_approach_the_exact_ones():
    from fklit.correctors.simulation.diagnostics import ito_against_exact

    target = Target.product([FIRST, SECOND])
    coarse, fine = (ito_against_exact(target, num_particles=300, num_steps=steps) for steps in (50, 400))
    assert (fine.rms < 0.6 * coarse.rms).all()
    assert (fine.rms < 0.55).all() and (fine.bias.abs() < 0.25).all()


def test_tempered_noise_and_ode_run_by_name():
    for name in ("tempered_noise", "ode", "target_score"):
        run = simulate(
            Target.annealed(FIRST, 1.5),
            num_particles=50,
            num_steps=20,
            proposal=EulerMaruyama(name),
            dtype=torch.float64,
        )
        assert torch.isfinite(run.samples).all()
