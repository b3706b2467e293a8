"""Tilts that are stiff at the noise end: exact means and log Z on every path, or a refusal that names the tilt."""

import math

import pytest
import torch
from torch import Tensor

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    EDM,
    EulerMaruyama,
    ExactRatio,
    NoisePath,
    NonFiniteScoreError,
    Ramp,
    ReverseKernel,
    ScoreModel,
    SimulationResult,
    StiffTiltError,
    Target,
    VarianceExploding,
    VariancePreserving,
    simulate,
)
from fklit.correctors.simulation.tilt_step import curvature

LAW = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
# The second coordinate is not tilted: a step that is damped everywhere would spoil it.
WIDE = GaussianMixture([[-1.5, 0.5], [1.2, 0.5]], [[0.15, 0.4], [0.30, 0.4]], [0.35, 0.65])
GRID = torch.linspace(-6, 6, 24001, dtype=torch.float64)


def parabola(x: Tensor) -> Tensor:
    return -((x[..., 0] - 1) ** 2)


def quartic(x: Tensor) -> Tensor:
    return -0.5 * x[..., 0] ** 4


def truth(reward) -> tuple[float, float]:
    """Mean and log Z by quadrature."""
    logs = LAW.log_density(GRID[:, None]) + reward(GRID[:, None])
    mass = torch.softmax(logs, dim=0)
    return float((mass * GRID).sum()), float(torch.logsumexp(logs, 0)) + math.log(float(GRID[1] - GRID[0]))


def deviation(values: Tensor, known: float) -> float:
    """Distance of a mean over groups from the truth, in its standard errors."""
    return abs(float(values.mean()) - known) / (float(values.std()) / len(values) ** 0.5)


def run(target: Target, **options) -> SimulationResult:
    settings = {"num_particles": 1000, "num_groups": 8, "num_steps": 200, "dtype": torch.float64, **options}
    return simulate(target, **settings)


def test_the_quadrature_is_the_figure_of_the_issue() -> None:
    assert truth(parabola) == pytest.approx((1.115, -0.686), abs=1e-3)


@pytest.mark.parametrize("path", [VarianceExploding(), EDM(), VariancePreserving()])
def test_a_tilt_is_exact_on_every_path(path: NoisePath) -> None:
    mean, log_z = truth(parabola)
    result = run(Target.tilted(LAW.on(path), parabola, Ramp(0.0, 1.0)))
    assert deviation(result.mean()[:, 0], mean) < 3
    assert deviation(result.log_z, log_z) < 3


@pytest.mark.slow
@pytest.mark.parametrize("path", [VarianceExploding(), EDM()])
def test_a_tilt_whose_curvature_has_no_bound_is_stable_and_converges(path: NoisePath) -> None:
    mean, log_z = truth(quartic)
    target = Target.tilted(LAW.on(path), quartic, Ramp(0.0, 1.0))
    few, many = run(target), run(target, num_steps=800)
    assert deviation(few.mean()[:, 0], mean) < 3
    assert deviation(many.mean()[:, 0], mean) < 3
    # The noise end changes by far more than a step can follow: log Z converges from below.
    assert abs(float(few.log_z.mean()) - log_z) < 1.6
    assert deviation(many.log_z, log_z) < 3


def test_coordinates_that_are_not_tilted_keep_their_law() -> None:
    result = run(Target.tilted(WIDE.on(VarianceExploding()), parabola, Ramp(0.0, 1.0)))
    assert deviation(result.mean()[:, 0], truth(parabola)[0]) < 3
    assert deviation(result.mean()[:, 1], 0.5) < 3
    assert deviation(result.mean(lambda x: (x[..., 1] - 0.5) ** 2), 0.4) < 3
    assert deviation(result.log_z, truth(parabola)[1]) < 3


def test_a_gradient_in_closed_form_and_single_precision_are_as_stable() -> None:
    target = Target.tilted(LAW.on(EDM()), parabola, Ramp(0.0, 1.0), gradient=lambda x: -2 * (x - 1))
    result = run(target, dtype=torch.float32)
    assert deviation(result.log_z, truth(parabola)[1]) < 3


def test_the_flow_alone_is_exact_too() -> None:
    target = Target.tilted(LAW.on(VariancePreserving()), parabola, Ramp(0.0, 1.0))
    result = run(target, proposal=EulerMaruyama("ode"), ess_threshold=0.0)
    assert float(result.log_z.mean()) == pytest.approx(truth(parabola)[1], abs=0.05)


def test_a_stiff_tilt_is_refused_by_name_where_a_gaussian_kernel_is_needed() -> None:
    target = Target.tilted(LAW.on(VarianceExploding()), parabola, Ramp(0.0, 1.0))
    for options in ({"increment": ExactRatio()}, {"proposal": ReverseKernel()}):
        with pytest.raises(StiffTiltError, match=r"a tilt of curvature below .* take more steps"):
            run(target, **options)


def test_a_stiff_tilt_is_refused_by_name_where_log_densities_are_estimated() -> None:
    path = VarianceExploding()
    network = ScoreModel(lambda x, time: LAW.score(x, 1.0, path.sigma(float(time[0]))), path, prediction="score")
    network.event_shape = (1,)
    target = Target.annealed(network.given(), Ramp.late(1.5))
    with pytest.raises(StiffTiltError, match="which the Ito log densities need"):
        run(Target.tilted(target, parabola, Ramp(0.0, 1.0)), num_groups=1, num_particles=50)


def test_a_tilt_that_is_not_finite_is_named() -> None:
    target = Target.tilted(LAW.on(EDM()), lambda x: (x[..., 0] - 1).log(), Ramp(0.0, 1.0))
    with pytest.raises(NonFiniteScoreError, match="of the tilt, got NaN or infinity"):
        run(target, num_groups=1)


def test_curvature_is_that_of_the_curved_direction() -> None:
    x = torch.randn(2, 50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope = torch.zeros(10, dtype=torch.float64)
    slope[3] = 7.0
    assert torch.allclose(curvature(x, -slope * x, moved, -slope * moved), torch.full((2,), 7.0, dtype=torch.float64))
    assert torch.equal(curvature(x, x * 0, moved, x * 0), torch.zeros(2, dtype=torch.float64))
    assert float(curvature(x, x, moved, x * math.nan)[0]) == 1e300
