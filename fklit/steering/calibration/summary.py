"""A calibration in figures: for the report page, for the printed table, and as settings to copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fklit.steering.calibration.figures import rank_noise, step_figures
from fklit.steering.calibration.pool import mean_effective, nats, reward_std
from fklit.steering.calibration.proposal import Proposal
from fklit.steering.calibration.record import Calibration

_SHARES = (0.25, 0.5, 1, 2, 4, 8, 16, 32)  # scales times the standard deviation within a prompt


def summarize(
    calibration: Calibration, proposals: Sequence[Proposal], *, reward_scale: float | None = None
) -> dict[str, Any]:
    """Return what a report shows, JSON-able.

    Args:
        calibration: what was measured.
        proposals: settings that were proposed from it; may be empty.
        reward_scale: for effective shares and curves; None for that of the last proposal, or 1.
    """
    scale = reward_scale if reward_scale is not None else proposals[-1].reward_scale if proposals else 1.0
    figures = step_figures(calibration, scale)
    std = reward_std(calibration)
    return {
        "reward": str(calibration.run.get("reward", "")),
        "sampler": str(calibration.run.get("sampler", "")),
        "num_prompts": calibration.num_prompts,
        "num_samples": calibration.num_samples,
        "num_steps": calibration.num_steps,
        "reward_scale": scale,
        "reward_std": std,
        "upper_bound": calibration.upper_bound,
        "score_seconds": calibration.score_seconds,
        "denoiser_seconds": calibration.denoiser_seconds,
        "score_cost": calibration.score_cost,
        "rank_noise": rank_noise(calibration),
        "family": figures[0].curve.family,
        "steps": [
            {
                "step": item.step,
                "sd": item.sd,
                "rank_correlation": item.rank_correlation,
                "slope": item.slope,
                "ess_plain": item.ess_plain,
                "ess_calibrated": item.ess_calibrated,
            }
            for item in figures
        ],
        "scales": [
            {
                "scale": share / std,
                "nats": nats(calibration, share / std),
                "effective": mean_effective(calibration, share / std),
            }
            for share in _SHARES
            if std > 0
        ],
        "proposals": [_proposal(item) for item in proposals],
        "curves": [_curve(calibration, item.step, item.curve) for item in figures],
    }


def _curve(calibration: Calibration, step: int, curve: Any) -> dict[str, Any]:
    """Scores and final rewards of a step, and the curve over them, less its highest value."""
    scores, rewards = calibration.at(step), calibration.rewards
    kept = torch.isfinite(scores) & torch.isfinite(rewards)
    if not bool(kept.any()):
        return {"step": step, "scores": [], "rewards": [], "at": [], "log_q": []}
    points = torch.linspace(float(scores[kept].min()), float(scores[kept].max()), 60, dtype=torch.float64)
    values = curve(points)
    return {
        "step": step,
        "scores": scores[kept].tolist(),
        "rewards": rewards[kept].tolist(),
        "at": points.tolist(),
        "log_q": (values - values.max()).tolist(),
    }


def _proposal(item: Proposal) -> dict[str, Any]:
    return {
        "goal": item.goal,
        "reward_scale": item.reward_scale,
        "steps": list(item.reward_schedule.indices or ()),
        "nats": item.nats,
        "effective": item.effective,
        "overhead": item.overhead,
    }


def table(summary: Mapping[str, Any]) -> str:
    """Return the figures as lines of text.

    Args:
        summary: from `summarize`.
    """
    cost = summary["score_cost"]
    lines = [
        f"{summary['num_prompts']} prompts x {summary['num_samples']} samples, {summary['reward']}, "
        f"sd within a prompt {summary['reward_std']:.3g}"
        + ("" if cost is None else f"; a score costs {cost:.2f} denoiser calls"),
        "",
        f"{'step':>5} {'sd':>9} {'rank corr':>10} {'slope':>8} {'ESS plain':>10} {'calibrated':>11}",
    ]
    for row in summary["steps"]:
        lines.append(
            f"{row['step']:>5} {row['sd']:>9.3g} {row['rank_correlation']:>10.2f} {row['slope']:>8.2f} "
            f"{row['ess_plain']:>10.2f} {row['ess_calibrated']:>11.2f}"
        )
    lines += [
        f"(rank correlations within {summary['rank_noise']:.2f} are noise; ESS as a share of a prompt's samples at "
        f"reward scale {summary['reward_scale']:.3g}; curves: {summary['family']})",
        "",
    ]
    for item in summary["proposals"]:
        share = "" if item["overhead"] is None else f", scores take {item['overhead']:.0%} of the denoiser's time"
        lines.append(
            f"goal {item['goal']}: reward_scale {item['reward_scale']:g} ({item['nats']:.2f} nats from the base, "
            f"{item['effective']:.1f} of {summary['num_samples']} samples effective), scores at {item['steps']}{share}"
        )
    return "\n".join(lines)
