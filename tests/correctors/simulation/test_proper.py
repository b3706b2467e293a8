"""Targets without a finite integral: refused where it can be decided, warned of where it shows."""

import pytest
import torch
from torch import Tensor

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    ImproperTargetError,
    ImproperTargetWarning,
    Ramp,
    Target,
    VarianceExploding,
    VariancePreserving,
    simulate,
)
from fklit.correctors.simulation.proper import check_proper

FIRST = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
SECOND = GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3])
PATHS = [VariancePreserving(), VarianceExploding()]


class Bare:
    """An expert of whom nothing is known but its score."""

    event_shape = (1,)

    def __init__(self, inner) -> None:
        self.path, self.score = inner.path, inner.score


def grows(x: Tensor) -> Tensor:
    return 3 * x[..., 0] ** 2


@pytest.mark.parametrize("path", PATHS)
def test_exponents_that_sum_to_zero_at_the_noise_end_are_refused(path) -> None:
    for first, second in ((FIRST, SECOND), (SECOND, FIRST)):
        for exponents in ([1.0, -1.0], [1.0, -2.0]):
            for wrap in (lambda expert: expert, Bare):
                target = Target.product([wrap(first.on(path)), wrap(second.on(path))], exponents)
                with pytest.raises(ImproperTargetError, match=r"at the noise end|has no finite integral at t="):
                    simulate(target, num_particles=200, num_steps=50)


@pytest.mark.parametrize("path", PATHS)
def test_a_tilt_that_outgrows_the_experts_is_refused(path) -> None:
    with pytest.raises(ImproperTargetError, match="the tilt outgrows the experts"):
        simulate(Target.tilted(FIRST.on(path), grows, Ramp(0.0, 1.0)), num_particles=200, num_steps=200)


def test_tilts_that_the_experts_bound_pass() -> None:
    # 1 / (2 * 0.30) = 1.67 of the widest component is above 1.5; a reward that saturates is bounded by any expert.
    for reward in (lambda x: 1.5 * x[..., 0] ** 2, lambda x: grows(x).clamp(max=5.0)):
        simulate(
            Target.tilted(FIRST.on(PATHS[0]), reward, Ramp(0.0, 1.0), gradient=lambda x: 0 * x),
            num_particles=50,
            num_steps=20,
        )


def test_a_tilt_may_bound_what_the_experts_do_not() -> None:
    target = Target.product([GaussianMixture.single([0.0], 1.0).on(PATHS[0])] * 2, [2.0, -1.5])
    simulate(Target.tilted(target, lambda x: -(x[..., 0] ** 2), Ramp(0.0, 1.0)), num_particles=50, num_steps=20)


@pytest.mark.parametrize("path", PATHS)
def test_mass_that_leaves_every_expert_is_warned_of(path) -> None:
    target = Target.tilted(Bare(FIRST.on(path)), grows, Ramp(0.0, 1.0))
    with pytest.warns(ImproperTargetWarning, match="left the support of every expert"):
        simulate(target, num_particles=200, num_steps=200, dtype=torch.float64)


@pytest.mark.parametrize("path", [VariancePreserving(), VarianceExploding(0.01, 5.0)], ids=["VP", "VE"])
def test_the_boundary_is_where_the_precisions_cancel(path) -> None:
    """Two Gaussians under noise: 1 / (s^2 v + sigma^2) of the wide one against the exponent times the narrow one's."""
    wide, narrow = (GaussianMixture([[0.0]], [variance], [1.0]) for variance in (4.0, 0.5))
    t = 0.5
    scale, sigma = path.scale(t), path.sigma(t)
    boundary = (scale**2 * 0.5 + sigma**2) / (scale**2 * 4.0 + sigma**2)
    for factor, proper in ((0.999, True), (1.001, False)):
        target = Target.product([wide.on(path), narrow.on(path)], [1.0, -boundary * factor])
        if proper:
            check_proper(target, [t])
        else:
            with pytest.raises(ImproperTargetError, match="the precisions of its tails sum to"):
                check_proper(target, [t])
