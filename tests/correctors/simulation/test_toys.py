"""Where plain correctors fail, and what helps: many dimensions, strong annealing, forty modes."""

import pytest
import torch
from toys import assignment_w1, cubed, forty, four_modes, mode_masses, two_modes

from fklit.correctors import (
    EulerMaruyama,
    FittedControl,
    GaussianControl,
    LinearSigma,
    Ramp,
    Target,
    Uncorrected,
    VarianceExploding,
    VariancePreserving,
    simulate,
)


@pytest.mark.slow
def test_a_control_in_39_dimensions():
    """Two modes along one axis, annealed to beta = 2, never resampled: the spread of log weights."""
    settings = {"num_particles": 2000, "num_steps": 250, "ess_threshold": 0.0, "dtype": torch.float64}
    target = Target.annealed(two_modes(39).on(VariancePreserving()), 2.0)
    assert simulate(target, **settings).log_weights.std() > 4
    assert simulate(target, control=GaussianControl(), **settings).log_weights.std() < 0.8
    assert simulate(target, control=FittedControl(), **settings).log_weights.std() < 0.8


@pytest.mark.slow
def test_strong_annealing_keeps_the_masses_of_modes_only_with_a_late_ramp():
    law = four_modes()
    expert = law.on(LinearSigma())
    settings = {"num_particles": 4096, "num_groups": 2, "num_steps": 500, "ess_threshold": 1.0, "dtype": torch.float64}
    equal = torch.full((4,), 0.25, dtype=torch.float64)

    def modes(run):
        weights = torch.softmax(run.log_weights, dim=1)
        masses = [mode_masses(x, w, law.means) for x, w in zip(run.samples, weights, strict=True)]
        distance = torch.stack([0.5 * (mass - equal).abs().sum() for mass in masses]).mean()
        nearest = law.means[torch.cdist(run.samples, law.means).argmin(dim=2)]
        within = (weights * (run.samples - nearest).square().mean(dim=2)).sum(dim=1).mean()
        return float(distance), float(within)

    distance, within = modes(simulate(Target.annealed(expert, Ramp.late(10.0, start=0.3)), **settings))
    assert distance < 0.05
    assert within == pytest.approx(0.016, rel=0.15)
    assert modes(simulate(Target.annealed(expert, 10.0), **settings))[0] > 0.2  # documents the failure


@pytest.mark.slow
def test_forty_gaussians():
    """Beta = 3 on FAB's forty Gaussians, W1 in its coordinates; 2000 points by exact assignment."""
    law = forty()
    assert float(law.means[0, 0]) == pytest.approx((0.49625659 - 0.5) * 80 / 50, abs=1e-6)
    expert = law.on(VarianceExploding(0.01, 10.0))
    exact = cubed(law, 100_000, seed=1)
    wanted = mode_masses(exact, torch.full((100_000,), 1e-5, dtype=torch.float64), law.means)
    settings = {"num_particles": 4000, "num_steps": 500, "ess_threshold": 1.0, "dtype": torch.float64}

    def compare(target, groups, **more):
        run = simulate(target, num_groups=groups, **{**settings, **more})
        weights = torch.softmax(run.log_weights, dim=1)
        distances, masses = [], []
        for group, (x, w) in enumerate(zip(run.samples, weights, strict=True)):
            generator = torch.Generator().manual_seed(group)
            chosen = torch.multinomial(w, 2000, replacement=True, generator=generator)
            distances.append(50 * assignment_w1(x[chosen], exact[:2000]))
            masses.append(0.5 * float((mode_masses(x, w, law.means) - wanted).abs().sum()))
        return sum(distances) / groups, sum(masses) / groups

    w1, masses = compare(Target.annealed(expert, Ramp.late(3.0, start=0.6)), 2)
    assert w1 < 3.5
    assert masses < 0.10
    w1, _ = compare(Target.annealed(expert, 3.0), 2, increment=Uncorrected())
    assert 10.5 < w1 < 12.5
    w1, _ = compare(Target.annealed(expert, 3.0), 2, increment=Uncorrected(), proposal=EulerMaruyama("tempered_noise"))
    assert 15.5 < w1 < 17
    w1, _ = compare(Target.annealed(expert, 3.0), 2)
    assert w1 < 8
