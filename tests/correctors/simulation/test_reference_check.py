"""Diagnostics that can fail: a run that missed a mode has a fine ESS, and must be told from a right one."""

import pytest
import torch
from mixtures import errors, experts, truth

from fklit.correctors import EulerMaruyama, ScoreModel, Target, VariancePreserving, simulate, zeta_independence
from fklit.correctors.simulation.reference_check import reference_check

FIRST, SECOND, _ = experts()
SETTINGS = {"num_particles": 1000, "num_groups": 4, "num_steps": 200, "dtype": torch.float64}


def test_guidance_3_at_zeta_06_is_flagged_though_its_ess_is_high() -> None:
    """Most of the exact law lies at -4, where the heuristic's particles never go."""
    target = Target.guided(SECOND, FIRST, 3.0)
    run = simulate(target, proposal=EulerMaruyama(0.6), **SETTINGS)
    assert float(errors(run, truth(target)).w1.min()) > 0.6
    assert float(run.ess[-1].mean()) > 0.79 * 1000
    check = reference_check(target, run)
    assert check.decides and check.deviation > 20 and not check.consistent()
    assert check.log_z[1] == pytest.approx(truth(target).log_z, abs=0.1)


def test_a_right_run_is_not_flagged() -> None:
    target = Target.guided(SECOND, FIRST, 2.0)
    run = simulate(target, ess_threshold=0.5, **{**SETTINGS, "num_steps": 400})
    check = reference_check(target, run)
    assert check.consistent()
    torch.testing.assert_close(check.means[0], check.means[1], atol=0.1, rtol=0.1)


def test_agreement_that_errors_hide_is_no_agreement() -> None:
    target = Target.guided(SECOND, FIRST, 2.0)
    few = zeta_independence(target, num_particles=8, num_groups=3, num_steps=60)
    assert few.resolution > 0.1 and not few.consistent()
    assert few.min_ess.shape == few.roots.shape == (3,) and bool((few.roots < 1).all())


def test_the_least_ess_and_the_roots_come_first() -> None:
    run = simulate(Target.guided(SECOND, FIRST, 2.0), num_particles=100, num_steps=50)
    assert run.summary().startswith(
        f"group 0: least ESS {float(run.min_ess[0]):.3g} and {int(run.unique_roots[0])} roots"
    )
    assert list(run.record(0))[:2] == ["min_ess", "unique_roots"]


def test_experts_of_unknown_density_have_no_reference() -> None:
    model = ScoreModel(lambda x, t: 0 * x, VariancePreserving(), event_shape=(1,)).given()
    run = simulate(Target.annealed(model, 1.0), num_particles=10, num_steps=5)
    with pytest.raises(ValueError, match="so that there is no reference"):
        reference_check(Target.annealed(model, 1.0), run)
