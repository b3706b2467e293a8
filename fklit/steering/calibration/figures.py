"""What a calibration says of each step: how much scores part, how far they tell the end, what weights they give."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import rankdata
from torch import Tensor

from fklit.steering.calibration.curves import Curve
from fklit.steering.calibration.fitting import fit_curves
from fklit.steering.calibration.pool import effective_samples
from fklit.steering.calibration.record import Calibration


@dataclass(frozen=True)
class StepFigures:
    """One step of a calibration, over P prompts with n samples each.

    Attributes:
        step: 0 is the noisiest.
        sd: of the scores within a prompt, pooled over prompts.
        rank_correlation: of scores and final rewards within a prompt (Spearman's, pooled); NaN if either never parts.
        slope: of the regression of the final reward on the score within a prompt; NaN if scores never part.
        ess_plain: mean effective share of a prompt's samples under `exp(scale r_t)`, between 1/n and 1.
        ess_calibrated: the same under the fitted curve.
        curve: fitted `log E[exp(scale r_0) | r_t]`.
    """

    step: int
    sd: float
    rank_correlation: float
    slope: float
    ess_plain: float
    ess_calibrated: float
    curve: Curve


def step_figures(calibration: Calibration, reward_scale: float) -> list[StepFigures]:
    """Return the figures of all calibrated steps.

    Args:
        calibration: what was measured.
        reward_scale: of the target, for the effective shares and the curves.
    """
    curves = fit_curves(calibration, calibration.steps, reward_scale)
    return [_figures(calibration, step, reward_scale, curve) for step, curve in curves.items()]


def rank_noise(calibration: Calibration) -> float:
    """Standard error of a rank correlation where there is none: `1 / sqrt(P (n - 1))`."""
    return 1.0 / math.sqrt(calibration.num_prompts * (calibration.num_samples - 1))


def rank_correlation(scores: Float64[Tensor, "P n"], rewards: Float64[Tensor, "P n"]) -> float:
    """Correlation of ranks within prompts, pooled over prompts; NaN if no prompt has differences in both."""
    a, b = _centered(_ranks(scores)), _centered(_ranks(rewards))
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def _figures(calibration: Calibration, step: int, reward_scale: float, curve: Curve) -> StepFigures:
    scores, rewards = calibration.at(step), calibration.rewards
    finite = torch.isfinite(scores) & torch.isfinite(rewards)
    a, b = _centered(scores, finite), _centered(rewards, finite)
    square = float((a * a).sum())
    degrees = float((finite.sum(dim=1) - 1).clamp(min=0).sum())
    plain = torch.zeros_like(scores) if reward_scale == 0 else reward_scale * scores
    return StepFigures(
        step=step,
        sd=math.sqrt(square / degrees) if degrees else 0.0,
        rank_correlation=rank_correlation(scores, rewards),
        slope=float((a * b).sum()) / square if square > 0 else math.nan,
        ess_plain=float(effective_samples(plain).mean()) / calibration.num_samples,
        ess_calibrated=float(effective_samples(curve(scores)).mean()) / calibration.num_samples,
        curve=curve,
    )


def _ranks(values: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(rankdata(values.numpy(), axis=1), dtype=np.float64))


def _centered(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Values less the mean of their row; 0 where masked out."""
    if mask is None:
        return values - values.mean(dim=1, keepdim=True)
    kept = torch.where(mask, values, 0.0)
    means = kept.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(mask, values - means, 0.0)
