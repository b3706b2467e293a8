"""The curves of a calibration's steps, of the family that predicts prompts it has not seen best."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy.special import logsumexp

from fklit.steering.calibration.curves import Curve, Floats, fit_curve
from fklit.steering.calibration.record import Calibration

CurveChoice = Literal["auto", "logistic", "linear"]
_FOLDS = 5


def fit_curves(
    calibration: Calibration, steps: Sequence[int], reward_scale: float, *, family: CurveChoice = "auto"
) -> dict[int, Curve]:
    """Fit a curve for each step, all of one family.

    Args:
        calibration: what was measured.
        steps: among the calibrated ones.
        reward_scale: of the target.
        family: "logistic" needs an upper bound; "auto" is linear without one, and with one whichever of the two
            predicts the weights within prompts that were left out better, over all steps.
    """
    return dict(_fitted(calibration, tuple(steps), float(reward_scale), family))


@lru_cache(maxsize=32)  # a run of many batches fits once
def _fitted(
    calibration: Calibration, steps: tuple[int, ...], reward_scale: float, family: CurveChoice
) -> tuple[tuple[int, Curve], ...]:
    bound = calibration.upper_bound
    rewards = calibration.rewards.numpy()
    scores = {step: calibration.at(step).numpy() for step in steps}
    if family == "auto" and bound is not None and _linear_is_better(scores, rewards, reward_scale, bound):
        family = "linear"
    bound = None if family == "linear" else bound
    return tuple((step, fit_curve(values, rewards, scale=reward_scale, bound=bound)) for step, values in scores.items())


def held_out_loss(scores: Floats, rewards: Floats, *, scale: float, bound: float | None) -> float:
    """Cross-entropy within prompts of the target's weights under curves that were fitted on other prompts, in nats.

    Prompts count as often as they have effective samples.

    Args:
        scores: of one step, (P, n).
        rewards: (P, n).
        scale: of the target.
        bound: for a logistic curve; None for a linear one.
    """
    count = len(scores)
    folds, lost = min(_FOLDS, count), 0.0
    for fold in range(folds):
        left_out = np.arange(count) % folds == fold
        seen = ~left_out if folds > 1 else left_out
        curve = fit_curve(scores[seen], rewards[seen], scale=scale, bound=bound)
        lost += _loss(curve, scores[left_out], rewards[left_out], scale)
    return lost


def _loss(curve: Curve, scores: Floats, rewards: Floats, scale: float) -> float:
    predicted = curve(torch.from_numpy(scores)).numpy()
    total = 0.0
    for row, tilted in zip(predicted, scale * rewards, strict=True):
        kept = np.isfinite(row)
        if not np.isfinite(tilted[kept]).any():
            continue
        weights = np.exp(tilted[kept] - logsumexp(tilted[kept]))
        shares = row[kept] - logsumexp(row[kept])
        total -= float((weights * shares).sum() / (weights**2).sum())
    return total


def _linear_is_better(scores: dict[int, Floats], rewards: Floats, scale: float, bound: float) -> bool:
    if scale == 0:
        return True

    def lost(limit: float | None) -> float:
        return sum(held_out_loss(values, rewards, scale=scale, bound=limit) for values in scores.values())

    return lost(None) <= lost(bound)
