"""What a calibration proposes: where to score, how often, and a reward scale from a budget.

- **Where**: evenly, from the first step whose scores are correlated with the final reward (by more than two standard
  errors, and above 0 from there on) to the last one at which they do not yet decide it: clones need steps to part.
  Steps are *not* placed where scores tell most (the highest correlation or AUC): in a trial with the shipped model
  scores at the three best steps lost the gain that three earlier, weaker ones had. A late score picks well, but what
  it picks is finished.
- **How often**: as many scores as a share of the denoiser's time pays for, 3 to 9.
- **Scale**: from a budget in nats (KL of the target from the base) or in effective samples, by the pool of samples.
  The goals' own budgets stop where the scale times the reward's standard deviation within a prompt is 5 ("sample") or
  16 ("best"): among prompts whose samples are all good, more nats are bought by differences that mean nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal

from fklit.checks import as_number, check_choice
from fklit.feynman_kac.schedule import Schedule
from fklit.steering.calibration.figures import rank_correlation, rank_noise
from fklit.steering.calibration.pool import mean_effective, nats, reward_std, scale_for
from fklit.steering.calibration.record import Calibration

Goal = Literal["best", "sample"]
DEFAULT_NATS = 1.0  # of goal="sample": a target that K = 4 particles can represent, as log 4 = 1.4
BEST_SHARE = 0.8  # of goal="best": the share of what a pool can show at any scale
DEFAULT_OVERHEAD = 0.5  # seconds of scores for each second of the denoiser
_FEWEST, _MOST, _UNMEASURED = 3, 9, 7
_NOISE = 2.0  # standard errors
_DECIDED = 0.95  # rank correlation from which on the score is the final reward
_WIDEST: dict[Goal, float] = {"best": 16.0, "sample": 5.0}  # scale times the standard deviation within a prompt


@dataclass(frozen=True)
class Proposal:
    """Settings that a calibration proposes for a goal.

    Attributes:
        goal: "best" or "sample", see `fklit.steering.goals`.
        reward_scale: of the target.
        reward_schedule: steps that score.
        nats: KL of that target from the base, in nats, as far as the samples show it.
        effective: effective samples of the n of a prompt under that target.
        overhead: seconds of scores for each second of the denoiser; None if not measured.
    """

    goal: Goal
    reward_scale: float
    reward_schedule: Schedule
    nats: float
    effective: float
    overhead: float | None


def propose(
    calibration: Calibration,
    goal: Goal,
    *,
    nats_from_base: float | None = None,
    effective: float | None = None,
    overhead: float = DEFAULT_OVERHEAD,
) -> Proposal:
    """Propose settings for a goal.

    Args:
        calibration: what was measured.
        goal: "best" (one good sample: a scale that spends 0.8 of all nats that the samples can show) or "sample"
            (draws from the target: 1 nat, or half of what the samples can show if that is less); see the module.
        nats_from_base: a budget in nats in place of the goal's own.
        effective: a budget in effective samples of the n of a prompt in place of it.
        overhead: seconds of scores for each second of the denoiser, above 0.

    Raises:
        ValueError: a budget that the samples cannot show, or no step whose scores tell anything of the end.
    """
    check_choice("goal", goal, ("best", "sample"))
    share = as_number(overhead)
    if share is None or not 0 < share < math.inf:
        raise ValueError(f"expected overhead to be a finite number above 0, got {overhead!r}; give one such as 0.5.")
    most = math.inf
    if nats_from_base is None and effective is None:
        limit = nats(calibration, math.inf)
        nats_from_base = BEST_SHARE * limit if goal == "best" else min(DEFAULT_NATS, 0.5 * limit)
        most = _WIDEST[goal] / reward_std(calibration)
    scale = _rounded(min(most, scale_for(calibration, nats_from_base=nats_from_base, effective=effective)))
    steps = propose_steps(calibration, overhead=share)
    return Proposal(
        goal=goal,
        reward_scale=scale,
        reward_schedule=Schedule(indices=steps),
        nats=nats(calibration, scale),
        effective=mean_effective(calibration, scale),
        overhead=_overhead(calibration, len(steps)),
    )


def propose_steps(calibration: Calibration, *, overhead: float = DEFAULT_OVERHEAD) -> tuple[int, ...]:
    """Return the steps to score at, see the module.

    Raises:
        ValueError: no step's scores are correlated with the final reward beyond noise.
    """
    correlations = {step: rank_correlation(calibration.at(step), calibration.rewards) for step in calibration.steps}
    last_step = calibration.num_steps - 1
    noise = _NOISE * rank_noise(calibration)
    telling: list[int] = []
    for step in reversed([step for step in calibration.steps if step < last_step]):
        if not correlations[step] > 0:  # also where it is NaN
            break
        telling.insert(0, step)
    while telling and correlations[telling[0]] <= noise:
        telling.pop(0)
    if not telling:
        raise ValueError(
            "expected scores on the way that say something of the final reward, got a rank correlation within noise at "
            "every calibrated step; calibrate with more prompts, or use potential='terminal' (best-of-n)."
        )
    open_ = [step for step in telling if correlations[step] < _DECIDED]
    first, last = telling[0], (open_ or telling)[-1]
    window = [step for step in calibration.steps if first <= step <= last]
    one = _overhead(calibration, 1)
    count = _UNMEASURED if one is None else max(_FEWEST, min(_MOST, int(overhead / one)))
    # Half an interval is left free at the end: the earlier of two schedules with the same number of scores paid.
    wanted = [first + (last - first) * place / max(count - 0.5, 1.0) for place in range(count)]
    return tuple(sorted({_nearest(window, place) for place in wanted}))


def _nearest(steps: list[int], place: float) -> int:
    return min(steps, key=lambda step: abs(step - place))


def _overhead(calibration: Calibration, count: int) -> float | None:
    cost = calibration.score_cost
    return None if cost is None else count * cost / (calibration.num_steps * calibration.calls_per_step)


def _rounded(scale: float) -> float:
    """To two digits: a pool of samples does not know more."""
    return float(f"{scale:.2g}")
