"""The calibrated potential: intermediate targets `p(x_t) q_t(r_t)`, closed exactly by `exp(reward_scale r(x_0))`."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.feynman_kac.potentials import Potential, times
from fklit.steering.calibration.curves import Curve
from fklit.steering.calibration.fitting import CurveChoice, fit_curves
from fklit.steering.calibration.pool import effective_samples, scale_for
from fklit.steering.calibration.record import Calibration, as_calibration

_FEWEST = 8.0  # effective samples beyond the first of each prompt, over all prompts, that a curve should rest on
_MUST_AGREE = ("sampler", "reward", "look_ahead", "score_scale")
_MAY_DIFFER = ("model", "arguments", "latent_reward")


class CalibrationWarning(UserWarning):
    """The calibration was made with other settings than the run, or says little about its reward scale."""


@dataclass(frozen=True, init=False, kw_only=True)
class Calibrated(Potential):
    """`q_t(r_t) / q_s(r_s)` between scored steps s and t, with `q_t(r) ~ E[exp(reward_scale r_0) | r_t = r]`.

    The twist of FK steering that a score can give: particles are weighed by what they are expected to be worth at the
    end, not by their score. Whatever the curves, the terminal potential closes on `exp(reward_scale r(x_0))`, so that a
    poor calibration costs variance and never moves the target. It serves drawing from the target (`goal="sample"`); for
    one good sample a plain difference chooses better (`goal="best"`).

    A tempering raises the curve of the full scale to the power `scale / reward_scale`.

    Args:
        calibration: A `Calibration`, or the path of one that was saved.
        curve: Family of the curves: "linear", or "logistic" for rewards with an upper bound; "auto" is linear without a
            bound, and with one whichever of the two predicts prompts that were left out better.

    Raises:
        ValueError: The curve needs a bound that the calibration does not have, or the file is no calibration.
        FileNotFoundError: There is no such file.
    """

    calibration: str | Path | Calibration  # a Calibration, once made; jsonargparse reads what it may be made of
    curve: CurveChoice

    def __init__(self, calibration: str | Path | Calibration, *, curve: CurveChoice = "auto") -> None:
        check_choice("curve", curve, ("auto", "logistic", "linear"))
        object.__setattr__(self, "form", "increment")
        object.__setattr__(self, "calibration", as_calibration(calibration))
        object.__setattr__(self, "curve", curve)
        if curve == "logistic" and self.made.upper_bound is None:
            raise ValueError(
                "expected a calibration with an upper_bound for curve='logistic', got one without; give upper_bound= "
                "when calibrating, or curve='linear'."
            )

    @property
    def made(self) -> Calibration:
        """The calibration."""
        return as_calibration(self.calibration)

    def prepare(
        self,
        steps: Sequence[int],
        *,
        num_steps: int,
        reward_scale: float,
        describe_run: Callable[[], Mapping[str, Any]] | None = None,
    ) -> "FittedPotential":
        """Fit the curves of a run's steps at its reward scale.

        Raises:
            ValueError: the calibration is of another sampler, reward or number of steps, or has no step near one.
        """
        found = self.made
        check_run(found, num_steps=num_steps, describe_run=describe_run)
        nearest = {step: found.nearest(step) for step in steps}
        _check_support(found, reward_scale)
        fitted = fit_curves(found, sorted(set(nearest.values())), reward_scale, family=self.curve)
        curves = {step: fitted[known] for step, known in nearest.items()}
        return FittedPotential(curves=curves, reward_scale=float(reward_scale))

    def tilt(self, statistic: Tensor, scale: Tensor, *, step: int | None = None) -> Tensor:
        """Refuse: curves belong to a run.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "expected a Calibrated potential that knows its run, got one before prepare(); use it with fklit.steer, or "
            "call prepare(steps, num_steps=..., reward_scale=...) and score at these steps."
        )

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the reward itself."""
        return reward

    def overshoot(self, num_points: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class FittedPotential(Potential):
    """A `Calibrated` potential of one run: curves by step.

    Attributes:
        curves: `log q_t` of each step that scores.
        reward_scale: the scale they are fitted for.
    """

    curves: Mapping[int, Curve] = field(default_factory=dict)
    reward_scale: float = 1.0

    def tilt(self, statistic: Tensor, scale: Tensor, *, step: int | None = None) -> Tensor:
        """Return `(scale / reward_scale) log q_step(r)`.

        Raises:
            ValueError: there is no curve for the step.
        """
        if step is None or step not in self.curves:
            raise ValueError(
                f"expected one of the steps {sorted(self.curves)}, for which curves are fitted, got {step}; give "
                "RewardPath the steps that score."
            )
        share = scale / self.reward_scale if self.reward_scale > 0 else torch.zeros_like(scale)
        return times(share, self.curves[step](statistic))

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the reward itself."""
        return reward

    def overshoot(self, num_points: int) -> float:
        """Return 1."""
        return 1.0


def check_run(
    calibration: Calibration,
    *,
    num_steps: int,
    describe_run: Callable[[], Mapping[str, Any]] | None,
    ignored: Sequence[str] = (),
) -> None:
    """Compare a calibration with the run that takes something from it.

    Args:
        calibration: what was measured.
        num_steps: of the run.
        describe_run: says what runs; None if unknown.
        ignored: parts of it that do not matter to the run.

    Raises:
        ValueError: the run has another sampler, reward or number of steps.
    """
    if num_steps != calibration.num_steps:
        raise ValueError(
            f"expected a run of {calibration.num_steps} steps, as the calibration was made, got {num_steps}; calibrate "
            "again with these."
        )
    if describe_run is not None and calibration.run:
        _compare(calibration.run, describe_run(), ignored)


def _compare(made: Mapping[str, Any], run: Mapping[str, Any], ignored: Sequence[str]) -> None:
    """Refuse what makes the scores others; warn of what may."""
    for name in (name for name in _MUST_AGREE if name not in ignored):
        if made.get(name) != run.get(name):
            raise ValueError(
                f"expected a calibration of {name} {run.get(name)!r}, got one of {made.get(name)!r}; calibrate again "
                "with the settings of this run."
            )
    if None not in (made.get("reward_hash"), run.get("reward_hash")) and made["reward_hash"] != run["reward_hash"]:
        raise ValueError(
            f"expected a calibration of this {run['reward']}, got one of a {made['reward']} with other arguments or "
            "weights; calibrate again with the settings of this run."
        )
    for name in _MAY_DIFFER:
        if made.get(name) != run.get(name):
            warnings.warn(
                f"the calibration was made with {name} {_shown(made.get(name))}, the run has {_shown(run.get(name))}; "
                "the target stays exact, but calibrate again for weights that fit.",
                CalibrationWarning,
                stacklevel=2,
            )


def _check_support(calibration: Calibration, reward_scale: float) -> None:
    """Warn of a scale at which few of the samples count."""
    tilted = torch.zeros_like(calibration.rewards) if reward_scale == 0 else reward_scale * calibration.rewards
    support = float((effective_samples(tilted) - 1).sum())
    if support >= _FEWEST:
        return
    most = calibration.num_samples - 1
    needed = _FEWEST / calibration.num_prompts
    fix = "calibrate with more prompts or samples"
    if needed < 0.9 * most:
        try:
            fix = f"use at most {scale_for(calibration, effective=1 + needed):.2g}, or {fix}"
        except ValueError:  # ties keep more than that at any scale
            pass
    warnings.warn(
        f"expected a calibration whose samples say something of reward_scale={reward_scale:g}, got {support:.1f} "
        f"effective samples beyond one a prompt (of {calibration.num_prompts * most}); the target stays exact, but "
        f"{fix}.",
        CalibrationWarning,
        stacklevel=2,
    )


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else repr(value)
