"""Schedules: windows and lists, steps and fractions, and what lies outside a run."""

import numpy as np
import pytest

from fklit.feynman_kac import Schedule


@pytest.mark.parametrize(
    ("schedule", "num_steps", "expected"),
    [
        (Schedule(), 3, (0, 1, 2)),
        (Schedule(start=0.2, stop=0.8, every=5), 50, (10, 15, 20, 25, 30, 35, 40)),
        (Schedule(start=20, stop=80, every=20), 100, (20, 40, 60, 80)),  # reference 20-80-20, paper [0, 20, 40, 60, 80]
        (Schedule(start=5, stop=30, every=5), 100, (5, 10, 15, 20, 25, 30)),  # the reference's default 5-30-5
        (Schedule(start=0.2, stop=0.8, every=0.2), 100, (20, 40, 60, 80)),
        (Schedule(start=0.2, stop=0.8, every=0.2), 10, (2, 4, 6, 8)),
        (Schedule(start=0.0, stop=1.0, every=0.3), 10, (0, 3, 6, 9)),
        (Schedule(start=0.25, stop=0.5, every=1), 10, (3, 4, 5)),
        (Schedule(start=0.0, stop=1.0, every=0.01), 4, (0, 1, 2, 3)),
        (Schedule(start=3, stop=0.5, every=2), 20, (3, 5, 7, 9)),
        (Schedule(indices=(7, 2, 2, 0.5)), 10, (2, 5, 7)),
        (Schedule(indices=()), 10, ()),
        (Schedule(start=0, stop=0, every=9), 1, (0,)),
    ],
)
def test_resolves(schedule: Schedule, num_steps: int, expected: tuple[int, ...]) -> None:
    assert schedule.resolve(num_steps) == expected
    assert schedule.resolve_resampling(num_steps) == expected


def test_the_same_fractions_scale_with_the_run() -> None:
    for num_steps in (10, 20, 50, 100, 1000):
        steps = Schedule(start=0.2, stop=0.8, every=0.2).resolve(num_steps)
        assert [step / num_steps for step in steps] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_steps_that_score_but_do_not_resample() -> None:
    schedule = Schedule(start=2, stop=8, every=2, resample_at=(8, 4))
    assert schedule.resolve(10) == (2, 4, 6, 8)
    assert schedule.resolve_resampling(10) == (4, 8)
    assert Schedule(resample_at=()).resolve_resampling(10) == ()
    with pytest.raises(
        ValueError, match=r"resample_at names steps \[3\] that do not score; choose among \[2, 4, 6, 8\]"
    ):
        Schedule(start=2, stop=8, every=2, resample_at=(3,)).resolve_resampling(10)


def test_a_list_from_yaml_becomes_a_tuple() -> None:
    assert hash(Schedule(indices=[1, 2])) == hash(Schedule(indices=(1, 2)))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(start=50, stop=60), "start=50 is outside a run of 50 steps; give 0 to 49"),
        (Schedule(start=10, stop=50), "stop=50 is outside a run of 50 steps"),
        (Schedule(start=1.0), "start=1.0 is outside a run of 50 steps"),
        (Schedule(indices=(3, 50)), "Step 50 is outside a run of 50 steps"),
        (Schedule(indices=(1.0,)), "Step 1.0 is outside a run of 50 steps"),
        (Schedule(start=0.21, stop=0.215), "No step of a run of 50 lies between start=0.21 and stop=0.215"),
        (Schedule(start=30, stop=0.5), "No step of a run of 50 lies between"),
    ],
)
def test_steps_outside_the_run_are_refused(schedule: Schedule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule.resolve(50)


def test_impossible_settings_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"start=-1 is negative"):
        Schedule(start=-1)
    with pytest.raises(ValueError, match=r"stop=1.5 is not a fraction of the run"):
        Schedule(stop=1.5)
    with pytest.raises(ValueError, match=r"every=0 is not accepted"):
        Schedule(every=0)
    with pytest.raises(ValueError, match=r"every=2.0 is not accepted"):
        Schedule(every=2.0)
    with pytest.raises(ValueError, match=r"start=0.8 is after stop=0.2; .* swap them"):
        Schedule(start=0.8, stop=0.2)
    with pytest.raises(TypeError, match=r"start is True"):
        Schedule(start=True)
    with pytest.raises(TypeError, match=r"'20'"):
        Schedule(start="20")
    with pytest.raises(TypeError, match=r"'all'"):
        Schedule(indices="all")
    with pytest.raises(ValueError, match=r"a step of indices=-3 is negative"):
        Schedule(indices=(-3,))
    with pytest.raises(ValueError, match=r"num_steps=0 is too small"):
        Schedule().resolve(0)


def test_rounding_of_fractions_is_forgiven_and_no_more() -> None:
    """On 1000 steps a fraction may miss a step by 1e-9 of one, which rounding explains, not by 1.5e-9."""
    for miss, expected in ((0.5e-9, 300), (1.5e-9, 299)):
        assert Schedule(indices=((300 - miss) / 1000,)).resolve(1000) == (expected,)
        assert Schedule(start=0, stop=(300 - miss) / 1000, every=1).resolve(1000)[-1] == expected
    for miss, expected in ((0.5e-9, 300), (1.5e-9, 301)):
        assert Schedule(start=(300 + miss) / 1000, stop=999).resolve(1000)[0] == expected


def test_ends_of_what_is_accepted() -> None:
    assert Schedule(every=1.0).resolve(4) == (0,) and Schedule(every=4).resolve(4) == (0,)
    assert Schedule(start=2, stop=2).resolve(3) == (2,) and Schedule(start=0.5, stop=0.5).resolve(4) == (2,)
    assert Schedule(indices=(0, 3, 0.0)).resolve(4) == (0, 3)
    assert Schedule(start=0.0, stop=1.0).resolve(1) == (0,)
    with pytest.raises(TypeError, match=r"every=True is not a number"):
        Schedule(every=True)
    with pytest.raises(ValueError, match=r"every=inf is not accepted"):
        Schedule(every=float("inf"))
    with pytest.raises(ValueError, match=r"a step of resample_at=1.5 is not a fraction"):
        Schedule(resample_at=(1.5,))
    with pytest.raises(TypeError, match=r"indices=3 is not a list"):
        Schedule(indices=3)


def test_numbers_of_numpy_are_steps_or_fractions_as_those_of_python_are() -> None:
    steps = Schedule(start=np.int64(1), stop=np.int64(7), every=np.int64(2))
    assert steps == Schedule(start=1, stop=7, every=2) and steps.resolve(10) == (1, 3, 5, 7)
    fractions = Schedule(start=np.float32(0.25), stop=np.float64(0.75), every=np.float32(0.25))
    assert fractions == Schedule(start=0.25, stop=0.75, every=0.25) and fractions.resolve(20) == (5, 10, 15)
    listed = Schedule(indices=np.array([7, 2]), resample_at=np.array([2]))
    assert listed == Schedule(indices=(7, 2), resample_at=(2,)) and listed.resolve_resampling(10) == (2,)
    positions = [steps.start, steps.stop, steps.every, *listed.indices, *listed.resample_at]
    assert {type(position) for position in positions} == {int}
    assert {type(position) for position in (fractions.start, fractions.stop, fractions.every)} == {float}
