"""Calibrations on disk and in hand: kept as they are, refused in one line where they are not what is said."""

import json
import math

import pytest
import torch
from calibrations import of_chain
from worlds import GaussianChain

import fklit
from fklit.sampling.describe import describe
from fklit.steering.calibration import Calibrated, Calibration
from fklit.steering.calibration.record import as_calibration


def _made(**changes):
    generator = torch.Generator().manual_seed(0)
    parts = {
        "scores": torch.randn(3, 4, 2, generator=generator),
        "rewards": torch.randn(3, 4, generator=generator, dtype=torch.float64),
        "steps": [2, 5],
        "num_steps": 8,
        "prompts": ["a", "b", "ü"],
        "run": {"sampler": "DDIM", "arguments": {"eta": 1.0}},
        "score_seconds": 0.3,
        "denoiser_seconds": 0.1,
        "calls_per_step": 2.0,
    }
    return Calibration(**{**parts, **changes})


def test_a_round_trip_keeps_every_bit(tmp_path):
    scores = torch.randn(3, 4, 2, dtype=torch.float64)
    scores[0, 1, 0] = -math.inf
    made = _made(scores=scores, upper_bound=9.0)
    file = made.save(tmp_path / "deep" / "calibration.json")
    again = Calibration.load(str(file))
    assert again == made and hash(again) == hash(made) and again.digest == made.digest
    assert torch.equal(again.scores, scores) and torch.equal(again.rewards, made.rewards)
    assert (again.steps, again.num_steps, again.prompts, again.run) == ((2, 5), 8, ("a", "b", "ü"), made.run)
    assert (again.upper_bound, again.score_cost, again.calls_per_step) == (9.0, pytest.approx(3.0), 2.0)
    assert torch.equal(again.at(5), scores[:, :, 1])
    assert [path.name for path in file.parent.iterdir()] == ["calibration.json"]  # no part is left behind
    assert repr(again) == f"Calibration(3 prompts x 4 samples, 2 of 8 steps, {made.digest[:8]})"
    assert _made(num_steps=9) != made
    assert as_calibration(file) == as_calibration(made) == made


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", "{}", '{"format": "fklit calibration 1"}', '{"format": "other 2", "steps": []}', "\udcff"],
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"expected a calibration in .*wrong.json, got another file \(") as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value) and "fklit calibrate" in str(caught.value)


def test_a_damaged_calibration_is_refused(tmp_path):
    file = _made().save(tmp_path / "a.json")
    whole = json.loads(file.read_text())
    for damage in ({"rewards": [[1.0]]}, {"scores": "many"}, {"scores": [[[None]]]}, {"extra": 1}, {"num_steps": 3}):
        file.write_text(json.dumps({**whole, **damage}))
        with pytest.raises(ValueError, match="got another file"):
            Calibration.load(file)
    with pytest.raises(FileNotFoundError, match=r"expected a calibration in .*none.json, got no file; make one with"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(TypeError, match="expected a Calibration or the path of one, got a int"):
        Calibrated(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": torch.zeros(3, 5)}, r"got \(3, 4, 2\) and \(3, 5\)"),
        ({"prompts": ["a"]}, "of 1 prompts"),
        ({"steps": [5, 2]}, "expected rising steps"),
        ({"steps": [2, 8]}, "expected rising steps below num_steps=8"),
        ({"scores": torch.zeros(3, 1, 2), "rewards": torch.zeros(3, 1)}, "at least 2 samples a prompt"),
        ({"scores": torch.full((3, 4, 2), math.nan)}, "scores without NaN"),
        ({"rewards": torch.full((3, 4), math.inf)}, r"rewards without NaN and \+inf"),
        ({"upper_bound": -20.0}, r"at most upper_bound=-20"),
        ({"upper_bound": math.nan}, "upper_bound to be a finite number"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _made(**changes)
    with pytest.raises(ValueError, match=r"expected a step among the calibrated \[2, 5\] of 8, got 3"):
        _made().at(3)


def test_runs_on_disk_can_tell_calibrations_apart():
    one, other = _made(), _made(num_steps=9)
    assert describe(Calibrated(one)) == describe(Calibrated(_made())) != describe(Calibrated(other))
    assert describe(Calibrated(one)) != describe(Calibrated(one, curve="linear"))
    assert Calibrated(one) == Calibrated(_made()) != Calibrated(other)
    json.dumps(describe(Calibrated(one)))
    assert fklit.Calibration is Calibration
    assert of_chain(GaussianChain(score_steps=(3,))) == of_chain(GaussianChain(score_steps=(3,)))
