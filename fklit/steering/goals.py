"""The two goals of steering, which have different best settings: one good sample, and draws from the target.

============  ===========================  ==============================================================
setting       `goal="best"`                `goal="sample"`
============  ===========================  ==============================================================
potential     "difference"                 `Calibrated(calibration)`
ess_threshold 0.5                          1: resample whenever weights differ
reward_scale  a high one: the              the calibration's proposal: at most 1 nat
              calibration's proposal, or
              the reward's suggestion
schedule      the calibration's proposal,  the calibration's proposal
              or the usual one
============  ===========================  ==============================================================

A plain difference at a high scale takes scores at their word and picks: in a trial its best sample was better than
that of any calibrated setting, but its estimate of Z was less than half of the truth. A calibrated potential weighs
particles by what they are expected to be worth: Z and the law of the samples were right at K = 4, the best one was no
better than best-of-n's. Both are exact as K grows.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fklit.checks import check_choice
from fklit.feynman_kac.potentials import Difference
from fklit.steering.calibration.potential import Calibrated, check_run
from fklit.steering.calibration.proposal import Goal, propose
from fklit.steering.calibration.record import Calibration

__all__ = ["Goal", "check_best", "settings_of_goal"]


def settings_of_goal(
    goal: Goal, calibration: Calibration | None, given: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings that a goal sets.

    Args:
        goal: "best" or "sample".
        calibration: of the run; required by "sample".
        given: potential, ess_threshold, reward_scale and reward_schedule as they were given.
        usual: their defaults, which count as not given.

    Raises:
        ValueError: "sample" without a calibration, or a setting that the goal sets otherwise.
    """
    check_choice("goal", goal, ("best", "sample"))
    if goal == "sample":
        if calibration is None:
            raise ValueError(
                "expected a calibration with goal='sample', got none; make one with fklit.calibrate or `fklit "
                "calibrate --config FILE`, and give calibration=."
            )
        fixed: dict[str, Any] = {"potential": Calibrated(calibration), "ess_threshold": 1.0}
        if isinstance(given["potential"], Calibrated) and given["potential"].made == calibration:
            fixed["potential"] = given["potential"]  # with a curve of the user's choice
    else:
        fixed = {"potential": Difference(), "ess_threshold": 0.5}
    for name, value in fixed.items():
        if given[name] not in (value, usual[name]):
            raise ValueError(
                f"expected no {name} with goal={goal!r}, which sets {value!r}, got {given[name]!r}; omit one of the "
                "two."
            )
    open_ = [name for name in ("reward_scale", "reward_schedule") if given[name] is None]
    if calibration is not None and open_:
        found = propose(calibration, goal)
        fixed |= {name: getattr(found, name) for name in open_}
    return fixed


def check_best(
    goal: Goal | None,
    calibration: Calibration | None,
    *,
    num_steps: int,
    describe_run: Callable[[], Mapping[str, Any]],
) -> None:
    """Refuse a calibration of another run for `goal="best"`, which takes its scale and its steps from it.

    A `Calibrated` potential looks for itself.

    Raises:
        ValueError: the run has another sampler, reward or number of steps.
    """
    if goal == "best" and calibration is not None:
        check_run(calibration, num_steps=num_steps, describe_run=describe_run, ignored=("score_scale",))
