r"""Potentials: from the rewards along a path to log G, always closed on `exp(reward_scale * r(x_0))`.

A potential summarizes the rewards `r_1 .. r_t` seen so far on a path (1 is the noisiest score) by a statistic `S_t`:

===========  =======================  ===============================  ============================================
class        `S_t`                    `form="increment"` (default)     `form="statistic"` (the paper's)
===========  =======================  ===============================  ============================================
Difference   last reward `r_t`        `exp(c (r_t - r_{t-1}))`         `exp(c r_t)`, the reference code's "rt"
Max          `max_{s <= t} r_s`       `exp(c (S_t - S_{t-1}))`         `exp(c S_t)`
Sum          `sum_{s <= t} r_s`       `exp(c r_t)`                     `exp(c S_t)`
Terminal     nothing                  1: importance sampling, best-of-n
===========  =======================  ===============================  ============================================

with `c` the reward scale. The statistic starts at "none", so the first increment is `exp(c S_1)`. The scale may grow:
the increment form is then `exp(c_t S_t - c_{t-1} S_{t-1})`, whose intermediate target is `p(path) exp(c_t S_t)`. At a
constant scale `Sum("increment")` and `Difference("statistic")` are therefore the same potential; they differ under
tempering.

Whatever came before, the terminal potential is `exp(reward_scale * r(x_0)) / prod_t G_t`, so along every path the
product of all potentials is exactly `exp(reward_scale * r(x_0))`: the choice changes the variance, never the target.
The forms whose intermediate targets overshoot (`Potential.overshoot`) are legal but useless on long schedules, and
warn.

References:
    Singhal et al. 2025, arXiv 2501.06848, section 3 (difference, max, sum; the closure at t = 0).
"""

import copy
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.checks import check_choice, check_count, check_matrix, check_non_negative
from fklit.feynman_kac.weights import as_float64, weight_device

Form = Literal["increment", "statistic"]
PotentialName = Literal["difference", "max", "sum", "max-statistic", "sum-statistic", "rt", "terminal"]
OVERSHOOT_LIMIT = 5.0


class HighVarianceWarning(UserWarning):
    """The potential is exact, but its weights will vary too much to be of use on a schedule this long."""


@dataclass(frozen=True)
class Potential(ABC):
    """A rule that turns the rewards along a path into potentials; stateless (a path's state is a `RewardPath`).

    Attributes:
        form: "increment" or "statistic", see the module's table.
    """

    form: Form = "increment"

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("increment", "statistic"))

    @property
    def scores_intermediate(self) -> bool:
        """Whether rewards before the terminal one are used at all."""
        return True

    @abstractmethod
    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the statistic after `reward`, both of shape (B, K); `statistic` is None before the first."""

    @abstractmethod
    def overshoot(self, num_points: int) -> float:
        """Return `m` such that after `num_points` similar rewards r the intermediate target is about `exp(m * c * r)`.

        The final target has m = 1; what exceeds it must be taken back by the terminal weights.
        """

    def log_potential(self, tilt: Tensor, total: Tensor) -> Tensor:
        """Return log G for `tilt` = scale * statistic, given `total`, the sum of the path's log G so far."""
        return tilt - total if self.form == "increment" else tilt

    def warn_if_useless(self, num_points: int) -> None:
        """Warn with `HighVarianceWarning` if `num_points` intermediate scores overshoot by more than 5 times."""
        factor = self.overshoot(num_points)
        if factor > OVERSHOOT_LIMIT:
            warnings.warn(
                f"{self!r} with {num_points} intermediate scores weighs particles by about {factor:g} times the "
                "final tilt before "
                f"taking it back: the target stays exact but the variance is useless; use Difference() or Max() in "
                f"increment form, or fewer scores.",
                HighVarianceWarning,
                stacklevel=3,
            )


@dataclass(frozen=True)
class Difference(Potential):
    """The last reward: `exp(c (r_t - r_{t-1}))`; in statistic form the reference code's "rt", `exp(c r_t)`.

    The default: its intermediate targets are `p(x_t) exp(c r_t)`, never more tilted than the final one.
    """

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the reward itself."""
        return reward

    def overshoot(self, num_points: int) -> float:
        """Return 1 in increment form and `num_points` in statistic form."""
        return 1.0 if self.form == "increment" else float(num_points)


@dataclass(frozen=True)
class Max(Potential):
    """The best reward so far: `exp(c (max_t - max_{t-1}))`, or `exp(c max_t)` in statistic form."""

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the running maximum."""
        return reward if statistic is None else torch.maximum(statistic, reward)

    def overshoot(self, num_points: int) -> float:
        """Return 1 in increment form and `num_points` in statistic form."""
        return 1.0 if self.form == "increment" else float(num_points)


@dataclass(frozen=True)
class Sum(Potential):
    """The sum of rewards so far: `exp(c r_t)`, or `exp(c sum_t)` in statistic form."""

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the running sum."""
        return reward if statistic is None else statistic + reward

    def overshoot(self, num_points: int) -> float:
        """Return `n` in increment form and `n (n + 1) / 2` in statistic form, n being `num_points`."""
        return float(num_points) if self.form == "increment" else num_points * (num_points + 1) / 2


@dataclass(frozen=True)
class Terminal(Potential):
    """No potential before the end: importance sampling, whose best particle is best-of-n."""

    def __post_init__(self) -> None:
        """Refuse the statistic form, which does not exist here."""
        check_choice("form", self.form, ("increment",))

    @property
    def scores_intermediate(self) -> bool:
        """False: only the terminal reward counts."""
        return False

    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(reward)

    def overshoot(self, num_points: int) -> float:
        """Return 0."""
        return 0.0


def get_potential(name: "str | Potential") -> Potential:
    """Return the potential called `name`; a `Potential` is returned as it is.

    Args:
        name: "difference", "max", "sum" (increment form), "max-statistic", "sum-statistic" (the paper's form), "rt"
            (the reference code's, `Difference("statistic")`) or "terminal".

    Raises:
        ValueError: for another name.
    """
    if isinstance(name, Potential):
        return name
    table: dict[str, Potential] = {
        "difference": Difference(),
        "max": Max(),
        "sum": Sum(),
        "max-statistic": Max("statistic"),
        "sum-statistic": Sum("statistic"),
        "rt": Difference("statistic"),
        "terminal": Terminal(),
    }
    check_choice("potential", name, tuple(table))
    return table[name]


class RewardPath:
    """The reward history of every particle: gives log G score by score and closes it exactly at the end.

    It is per-particle state: call `select` with the ancestors of every resampling, before the next score.

    A reward of `-inf` kills its particle for good (its log G is `-inf` from then on), except where the scale is 0,
    which ignores it. NaN and `+inf` give a log G of NaN, for `ParticleSystem`'s `on_nan` to judge, and `-inf` from
    then on.

    Args:
        potential: the rule.
        num_groups: B.
        num_particles: K.
        num_points: how many intermediate scores will come, if known, so that a useless form warns at the start.

    Attributes:
        statistic: (B, K) float64, or None before the first score.
        total: (B, K) float64, the sum of log G so far (for a dead particle: until its death).
        dead: (B, K) bool.
        scale: (B,) float64, the last scale used, 0 before the first score.
        num_scores: intermediate scores so far.
    """

    def __init__(
        self, potential: Potential, num_groups: int, num_particles: int, *, num_points: int | None = None
    ) -> None:
        if not isinstance(potential, Potential):
            raise TypeError(f"potential is {potential!r}; give a Potential, or the result of potential('difference').")
        self.potential = potential
        self.shape = (check_count("num_groups", num_groups), check_count("num_particles", num_particles))
        self.statistic: Tensor | None = None
        self.total = torch.zeros(self.shape, dtype=torch.float64)
        self.dead = torch.zeros(self.shape, dtype=torch.bool)
        self.scale = torch.zeros(self.shape[0], dtype=torch.float64)
        self.num_scores = 0
        self.closed = False
        self._warned = num_points is not None
        if num_points is not None:
            potential.warn_if_useless(check_count("num_points", num_points, minimum=0))

    def update(self, reward: Tensor, scale: float | Tensor) -> Float64[Tensor, "B K"]:
        """Take an intermediate reward and return log G.

        Args:
            reward: shape (B, K), any real dtype; higher is better.
            scale: `c >= 0`, one number or one for each group, shape (B,); may grow from score to score.

        Raises:
            ValueError: for a wrong shape or scale, or after `terminal`.
        """
        values, factor = self._accept(reward, scale)
        log_potential, statistic = self._weigh(values, factor)
        # The tilt itself, not total + log G, so that rounding does not pile up.
        total = _times(factor, statistic) if self.potential.form == "increment" else self.total + log_potential
        self.total = torch.where(torch.isfinite(log_potential), total, self.total)
        self.dead = self.dead | ~torch.isfinite(log_potential)
        self.statistic = statistic
        self.scale = factor.squeeze(1)
        self.num_scores += 1
        if not self._warned and self.potential.overshoot(self.num_scores) > OVERSHOOT_LIMIT:
            self._warned = True
            self.potential.warn_if_useless(self.num_scores)
        return log_potential

    def preview(self, reward: Tensor, scale: float | Tensor) -> Float64[Tensor, "B K"]:
        """Return what `update` would, without changing anything."""
        return self._weigh(*self._accept(reward, scale))[0]

    def terminal(self, reward: Tensor, scale: float | Tensor) -> Float64[Tensor, "B K"]:
        """Take the reward of the finished sample and return the log G that closes the path: `scale * reward - total`.

        Args:
            reward: `r(x_0)`, shape (B, K).
            scale: the reward scale of the target, one number or one for each group.
        """
        values, factor = self._accept(reward, scale)
        log_potential = _times(factor, values) - self.total
        log_potential = torch.where(_invalid(values), torch.nan, log_potential).masked_fill(self.dead, -torch.inf)
        self.scale = factor.squeeze(1)
        self.closed = True
        return log_potential

    def select(self, ancestors: Tensor | None) -> "RewardPath":
        """Re-index the history in place by `ancestors`, int64 (B, K), and return self; None changes nothing."""
        if ancestors is not None:
            check_matrix("ancestors", ancestors, self.shape)
            self._gather(ancestors)
        return self

    def selected(self, ancestors: Tensor) -> "RewardPath":
        """Return a copy re-indexed by `ancestors`, int64, shape (B, K') for any K'; for states that are trees."""
        check_matrix("ancestors", ancestors)
        other = copy.copy(self)
        other._gather(ancestors)
        other.shape = (self.shape[0], ancestors.shape[1])
        return other

    def _gather(self, ancestors: Tensor) -> None:
        index = ancestors.to(self.total.device)
        self.total = self.total.gather(1, index)
        self.dead = self.dead.gather(1, index)
        if self.statistic is not None:
            self.statistic = self.statistic.gather(1, index)

    def _weigh(self, reward: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        statistic = self.potential.accumulate(self.statistic, reward)
        log_potential = self.potential.log_potential(_times(scale, statistic), self.total)
        if self.potential.scores_intermediate:
            log_potential = torch.where(_invalid(reward), torch.nan, log_potential)
        return log_potential.masked_fill(self.dead, -torch.inf), statistic

    def _accept(self, reward: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
        if self.closed:
            raise ValueError("This path has its terminal score already; start a new RewardPath for another run.")
        check_matrix("reward", reward, self.shape)
        device = weight_device(reward.device)
        if self.total.device != device and self.num_scores == 0:
            self.total, self.dead, self.scale = self.total.to(device), self.dead.to(device), self.scale.to(device)
        values = as_float64(reward).to(self.total.device)
        return values, scale_column(scale, self.shape[0], self.total.device)


def scale_column(scale: float | Tensor, num_groups: int, device: torch.device) -> Float64[Tensor, "B 1"]:
    """Return `scale`, one number or one for each group, as a float64 column; it must be finite and not negative."""
    if not isinstance(scale, Tensor):
        number = check_non_negative("scale", scale)
        return torch.full((num_groups, 1), number, dtype=torch.float64, device=device)
    values = as_float64(scale).to(device)
    if values.shape not in ((), (num_groups,)):
        raise ValueError(
            f"scale has shape {tuple(values.shape)}; give one number, or one for each of {num_groups} groups."
        )
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(
            "scale has a negative or infinite entry; give finite numbers of at least 0 (negate the reward instead)."
        )
    return values.expand(num_groups).unsqueeze(1)


def _times(scale: Tensor, values: Tensor) -> Tensor:
    """Return `scale * values` with `0 * anything = 0`: a scale of 0 ignores the reward."""
    return torch.where(scale == 0, torch.zeros_like(values), scale * values)


def _invalid(reward: Tensor) -> Tensor:
    return torch.isnan(reward) | (reward == torch.inf)
