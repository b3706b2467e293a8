"""Annealing, guidance and products of one-dimensional mixtures against quadrature."""

import pytest
import torch
from mixtures import errors, experts, truth

from fklit.correctors import Annealed, FittedControl, GaussianControl, Guided, Product, Uncorrected, simulate

SETTINGS = {"num_particles": 4000, "num_groups": 4, "num_steps": 400, "dtype": torch.float64}


def test_guidance_is_corrected_and_the_heuristic_is_not():
    first, second, _ = experts()
    target = Guided(second, first, 2.0)
    exact = truth(target)
    assert exact.mean == pytest.approx(-0.6471, abs=1e-4) and exact.variance == pytest.approx(0.7282, abs=1e-4)
    heuristic = errors(simulate(target, increment=Uncorrected(), **SETTINGS), exact)
    corrected = errors(simulate(target, **SETTINGS), exact)
    assert heuristic.w1.mean() > 0.2
    assert corrected.w1.mean() < 0.05 and corrected.variance < 0.10
    assert corrected.log_z.mean().abs() < 0.15


def test_a_fitted_control_keeps_annealing_alive_without_resampling():
    target = Annealed(experts()[0], 2.5)
    exact = truth(target)
    assert exact.mean == pytest.approx(0.4883, abs=1e-4) and exact.variance == pytest.approx(1.5190, abs=1e-4)
    plain = simulate(target, ess_threshold=0.0, **SETTINGS)
    fitted = simulate(target, ess_threshold=0.0, control=FittedControl(), **SETTINGS)
    closed = simulate(target, ess_threshold=0.0, control=GaussianControl(), **SETTINGS)
    assert plain.ess[-1].mean() / 4000 < 0.05
    assert fitted.ess[-1].mean() / 4000 >= 0.35
    assert closed.ess[-1].mean() / 4000 >= 0.35
    found = errors(fitted, exact)
    assert found.w1.mean() < 0.08
    assert found.log_z.mean().abs() < 0.05


def test_products():
    first, second, _ = experts()
    for target, bound in ((Product([first, second]), 0.07), (Annealed(Product([first, second]), 2.0), 0.10)):
        found = errors(simulate(target, control=FittedControl(), ess_threshold=0.5, **SETTINGS), truth(target))
        assert found.w1.mean() < bound


def test_three_experts_with_a_negative_exponent():
    target = Product(experts(), [1.2, 0.8, -0.5])
    exact = truth(target)
    assert exact.mean == pytest.approx(-0.5369, abs=1e-4) and exact.variance == pytest.approx(2.0274, abs=1e-4)
    assert errors(simulate(target, **SETTINGS), exact).w1.mean() < 0.07
