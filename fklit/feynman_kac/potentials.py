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

A potential of your own may choose the log tilt `c S_t` freely, also by step (`Potential.tilt`), and may look at the run
before its first score (`Potential.prepare`).

Whatever came before, the terminal potential is `exp(reward_scale * r(x_0)) / prod_t G_t`, so along every path the
product of all potentials is exactly `exp(reward_scale * r(x_0))`: the choice changes the variance, never the target.
The forms whose intermediate targets overshoot (`Potential.overshoot`) are legal but useless on long schedules, and
warn.

References:
    Singhal et al. 2025, arXiv 2501.06848, section 3 (difference, max, sum; the closure at t = 0).
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.feynman_kac.checks import check_choice

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

    def prepare(
        self,
        steps: Sequence[int],
        *,
        num_steps: int,
        reward_scale: float,
        describe_run: Callable[[], Mapping[str, Any]] | None = None,
    ) -> "Potential":
        """Return the potential of one run, before its first score; itself unless a subclass depends on the run.

        Args:
            steps: that score, 0 is the noisiest.
            num_steps: of the run.
            reward_scale: of the target.
            describe_run: says what runs (sampler, reward, arguments of the pipeline), JSON-able; None if unknown.
        """
        return self

    def tilt(self, statistic: Tensor, scale: Tensor, *, step: int | None = None) -> Tensor:
        """Return the log tilt (B, K) of the intermediate target `p(path) exp(tilt)`: `scale * statistic`.

        It must be 0 at scale 0, whatever the statistic; a tilt of `-inf` kills.

        Args:
            statistic: (B, K), from `accumulate`.
            scale: (B, 1), between 0 and the scale of the target.
            step: the step that was scored, None if the path was not told (see `RewardPath`).
        """
        return times(scale, statistic)

    @abstractmethod
    def accumulate(self, statistic: Tensor | None, reward: Tensor) -> Tensor:
        """Return the statistic after `reward`, both of shape (B, K); `statistic` is None before the first."""

    @abstractmethod
    def overshoot(self, num_points: int) -> float:
        """Return `m` such that after `num_points` similar rewards r the intermediate target is about `exp(m * c * r)`.

        The final target has m = 1; what exceeds it must be taken back by the terminal weights.
        """

    def log_potential(self, tilt: Tensor, total: Tensor) -> Tensor:
        """Return log G for the log `tilt`, given `total`, the sum of the path's log G so far."""
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


def times(scale: Tensor, values: Tensor) -> Tensor:
    """Return `scale * values` with `0 * anything = 0`: a scale of 0 ignores the reward."""
    return torch.where(scale == 0, torch.zeros_like(values), scale * values)
