"""The two goals: what each sets, and what contradicts them."""

import pytest
import torch
from calibrations import of_chain
from worlds import GaussianChain

import fklit
from fklit.feynman_kac import Difference, Linear, Max
from fklit.steering.calibration import Calibrated, propose
from fklit.steering.settings import SteeringSettings

STEPS = tuple(range(19))


@pytest.fixture(scope="module")
def made():
    return of_chain(GaussianChain(score_steps=STEPS))


def _settings(**given):
    return SteeringSettings(reward=lambda images: images.mean((1, 2, 3)), **given)


def test_best_is_a_plain_difference(made):
    alone = _settings(goal="best", reward_scale=3.0)
    assert (alone.potential, alone.ess_threshold, alone.reward_scale) == (Difference(), 0.5, 3.0)
    assert alone.reward_schedule is None and alone.calibration is None
    proposed = _settings(goal="best", calibration=made)
    found = propose(made, "best")
    assert (proposed.reward_scale, proposed.reward_schedule) == (found.reward_scale, found.reward_schedule)
    assert proposed.potential == Difference()


def test_sample_is_calibrated_and_resamples_always(made, tmp_path):
    path = made.save(tmp_path / "calibration.json")
    for given in (made, path, str(path)):
        settings = _settings(goal="sample", calibration=given)
        assert settings.potential == Calibrated(made) and settings.ess_threshold == 1.0
        assert settings.reward_scale == propose(made, "sample").reward_scale
        assert settings.calibration == made
    mine = _settings(
        goal="sample",
        calibration=made,
        reward_scale=2.0,
        reward_schedule=fklit.Schedule(indices=(3, 7)),
        potential=Calibrated(made, curve="linear"),
        tempering=Linear(),
    )
    assert (mine.reward_scale, mine.reward_schedule.indices) == (2.0, (3, 7))
    assert mine.potential.curve == "linear" and mine.tempering == Linear()


def test_settings_that_were_settled_settle_again(made):
    """Tasks pass all settings on, as keywords."""
    for goal in ("best", "sample"):
        settings = _settings(goal=goal, calibration=made)
        assert SteeringSettings(**settings.keywords()) == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"goal": "sample"}, r"expected a calibration with goal='sample', got none; make one with fklit.calibrate"),
        ({"goal": "best", "potential": "max"}, r"expected no potential with goal='best', .*Difference.*, got Max"),
        (
            {"goal": "best", "ess_threshold": 0.9},
            r"no ess_threshold with goal='best', which sets 0.5, got 0.9",
        ),
        ({"goal": "most"}, r"goal='most'"),
        ({"calibration": "none.json"}, r"expected a calibration in none.json, got no file"),
    ],
)
def test_contradictions_are_refused(given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _settings(**given)


def test_contradictions_to_a_calibration_are_refused(made):
    with pytest.raises(ValueError, match=r"expected no ess_threshold with goal='sample', which sets 1.0, got 0.25"):
        _settings(goal="sample", calibration=made, ess_threshold=0.25)
    with pytest.raises(ValueError, match=r"expected no potential with goal='sample', .*, got Max\(form='increment'\)"):
        _settings(goal="sample", calibration=made, potential=Max())
    with pytest.raises(ValueError, match="expected a goal with a calibration, got none"):
        _settings(calibration=made)
    other = of_chain(GaussianChain(score_steps=(3,)))
    with pytest.raises(ValueError, match=r"expected no potential with goal='sample'"):
        _settings(goal="sample", calibration=made, potential=Calibrated(other))
    quiet = of_chain(GaussianChain(score_steps=(3,), predict=lambda x, alpha_bar: -torch.ones_like(x)))
    with pytest.raises(ValueError, match="expected scores on the way that say something"):
        _settings(goal="best", calibration=quiet)
