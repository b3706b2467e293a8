"""The reward history of each particle, from which a potential makes log G score by score."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.checks import check_count, check_matrix, check_non_negative
from fklit.feynman_kac.potentials import OVERSHOOT_LIMIT, Potential, times
from fklit.feynman_kac.weights import as_float64, weight_device


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
        steps: the steps at which they will come, for potentials that depend on the step; None if unknown.

    Attributes:
        statistic: (B, K) float64, or None before the first score.
        total: (B, K) float64, the sum of log G so far (for a dead particle: until its death).
        dead: (B, K) bool.
        scale: (B,) float64, the last scale used, 0 before the first score.
        num_scores: intermediate scores so far.
    """

    def __init__(
        self,
        potential: Potential,
        num_groups: int,
        num_particles: int,
        *,
        num_points: int | None = None,
        steps: Sequence[int] | None = None,
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
        self._steps = None if steps is None else tuple(steps)
        num_points = len(self._steps) if self._steps is not None and num_points is None else num_points
        self._warned = num_points is not None
        if num_points is not None:
            potential.warn_if_useless(check_count("num_points", num_points, minimum=0))

    def update(self, reward: Tensor, scale: float | Tensor, *, scored: Tensor | None = None) -> Float64[Tensor, "B K"]:
        """Take an intermediate reward and return log G.

        Args:
            reward: shape (B, K), any real dtype; higher is better.
            scale: `c >= 0`, one number or one for each group, shape (B,); may grow from score to score.
            scored: bool, shape (B,); a group that was not scored keeps its history, and its log G is 0. None for all.

        Raises:
            ValueError: for a wrong shape or scale, after `terminal`, or for more scores than `steps`.
        """
        values, factor = self._accept(reward, scale)
        log_potential, statistic, tilt = self._weigh(values, factor)
        # The tilt itself, not total + log G, so that rounding does not pile up.
        total = tilt if self.potential.form == "increment" else self.total + log_potential
        if scored is not None:
            log_potential, statistic, factor, total = self._only(scored, log_potential, statistic, factor, total)
        self.total = torch.where(torch.isfinite(log_potential), total, self.total)
        self.dead = self.dead | ~torch.isfinite(log_potential)
        self.statistic = statistic
        self.scale = factor.squeeze(1)
        self.num_scores += 1
        if not self._warned and self.potential.overshoot(self.num_scores) > OVERSHOOT_LIMIT:
            self._warned = True
            self.potential.warn_if_useless(self.num_scores)
        return log_potential

    def _only(
        self, scored: Tensor, log_potential: Tensor, statistic: Tensor, scale: Tensor, total: Tensor
    ) -> tuple[Tensor, ...]:
        """Log G, statistics, scales and totals of those groups that were scored, and the old ones of the others."""
        if self.statistic is None:
            raise ValueError("scored expected every group at the first score, got some; score them all once.")
        rows = scored.to(log_potential.device).unsqueeze(1)
        still = torch.zeros_like(log_potential).masked_fill(self.dead, -torch.inf)
        return (
            torch.where(rows, log_potential, still),
            torch.where(rows, statistic, self.statistic),
            torch.where(rows, scale, self.scale.unsqueeze(1)),
            torch.where(rows, total, self.total),
        )

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
        log_potential = times(factor, values) - self.total
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

    def joined(self, other: "RewardPath") -> "RewardPath":
        """Return a copy with the particles of another path after these; both must have been scored equally often."""
        found = copy.copy(self)
        found.total = torch.cat([self.total, other.total.to(self.total)], dim=1)
        found.dead = torch.cat([self.dead, other.dead.to(self.dead)], dim=1)
        if self.statistic is not None and other.statistic is not None:
            found.statistic = torch.cat([self.statistic, other.statistic.to(self.statistic)], dim=1)
        found.shape = (self.shape[0], self.shape[1] + other.shape[1])
        return found

    def _gather(self, ancestors: Tensor) -> None:
        index = ancestors.to(self.total.device)
        self.total = self.total.gather(1, index)
        self.dead = self.dead.gather(1, index)
        if self.statistic is not None:
            self.statistic = self.statistic.gather(1, index)

    def _weigh(self, reward: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log G (B, K), the statistic and the log tilt after a reward."""
        statistic = self.potential.accumulate(self.statistic, reward)
        tilt = self.potential.tilt(statistic, scale, step=self._step())
        log_potential = self.potential.log_potential(tilt, self.total)
        if self.potential.scores_intermediate:
            log_potential = torch.where(_invalid(reward), torch.nan, log_potential)
        return log_potential.masked_fill(self.dead, -torch.inf), statistic, tilt

    def _step(self) -> int | None:
        """The step of the score at hand."""
        if self._steps is None:
            return None
        if self.num_scores >= len(self._steps):
            raise ValueError(
                f"expected at most {len(self._steps)} intermediate scores, at steps {list(self._steps)}, got another; "
                "give RewardPath all steps that score."
            )
        return self._steps[self.num_scores]

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


def _invalid(reward: Tensor) -> Tensor:
    return torch.isnan(reward) | (reward == torch.inf)
