"""How the reward scale grows along a run; at the terminal score it is `reward_scale`, whatever came before.

Early predictions are poor, so a full scale there kills good lineages on noise. Any path of scales keeps the target
exact, since the terminal potential closes on `reward_scale` (see `potentials`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.checks import check_count, check_fraction, check_matrix, check_non_negative
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.weights import as_float64, ess

_BISECTIONS = 60  # the scale to 1e-18 of its range: ESS to far better than 1e-6


class Tempering(ABC):
    """A rule for the scale of each intermediate score."""

    @abstractmethod
    def scale(
        self, path: RewardPath, reward: Tensor, *, log_weights: Tensor, reward_scale: float, point: int, num_points: int
    ) -> Float64[Tensor, " B"]:
        """Return the scale for the score at hand, one for each group, shape (B,), between 0 and `reward_scale`.

        Args:
            path: the rewards so far; its `scale` is the one used last.
            reward: the reward at hand, shape (B, K), not yet part of the path.
            log_weights: carried log-weights, shape (B, K).
            reward_scale: the scale of the target, at least 0.
            point: which intermediate score this is, from 0 to `num_points - 1`.
            num_points: how many intermediate scores the run has; the terminal score comes on top, at `reward_scale`.
        """


@dataclass(frozen=True)
class Constant(Tempering):
    """The full scale from the first score on."""

    def scale(
        self, path: RewardPath, reward: Tensor, *, log_weights: Tensor, reward_scale: float, point: int, num_points: int
    ) -> Float64[Tensor, " B"]:
        """Return `reward_scale` for every group."""
        _check_point(reward_scale, point, num_points)
        return torch.full((path.shape[0],), float(reward_scale), dtype=torch.float64, device=path.total.device)


@dataclass(frozen=True)
class Linear(Tempering):
    """A straight line from `first` to 1 times the scale.

    Score j = 0 .. n - 1 of n has the fraction `first + (1 - first) (j + 1) / (n + 1)` of it.

    Attributes:
        first: the fraction of the scale where the line starts, before the first score, in [0, 1].
    """

    first: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", check_fraction("first", self.first))

    def scale(
        self, path: RewardPath, reward: Tensor, *, log_weights: Tensor, reward_scale: float, point: int, num_points: int
    ) -> Float64[Tensor, " B"]:
        """Return the same point of the line for every group."""
        _check_point(reward_scale, point, num_points)
        fraction = self.first + (1.0 - self.first) * (point + 1) / (num_points + 1)
        return torch.full((path.shape[0],), reward_scale * fraction, dtype=torch.float64, device=path.total.device)


@dataclass(frozen=True)
class Geometric(Tempering):
    """From `first` to 1 times the scale by equal factors: slow where the scale is small.

    Score j = 0 .. n - 1 of n has the fraction `first ** (1 - (j + 1) / (n + 1))` of it.

    Attributes:
        first: the fraction of the scale where the curve starts, before the first score, above 0 and at most 1.
    """

    first: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", check_fraction("first", self.first))
        if self.first == 0:
            raise ValueError("expected first above 0, got 0.0, from which no factor leads to 1; use Linear().")

    def scale(
        self, path: RewardPath, reward: Tensor, *, log_weights: Tensor, reward_scale: float, point: int, num_points: int
    ) -> Float64[Tensor, " B"]:
        """Return the same point of the curve for every group."""
        _check_point(reward_scale, point, num_points)
        fraction = self.first ** (1.0 - (point + 1) / (num_points + 1))
        return torch.full((path.shape[0],), reward_scale * fraction, dtype=torch.float64, device=path.total.device)


@dataclass(frozen=True)
class Adaptive(Tempering):
    """The largest scale that keeps the ESS of a group's carried weights at `ess_target` of its living particles.

    Found by bisection, for each group on its own. The scale never falls: if the group's ESS is below the target
    already at the scale used last, that scale stays.

    Attributes:
        ess_target: fraction in (0, 1).

    References:
        Jasra et al. 2011, Scand. J. Stat. 38 (adaptive tempering).
    """

    ess_target: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "ess_target", check_fraction("ess_target", self.ess_target))
        if self.ess_target in (0, 1):
            raise ValueError(f"ess_target={self.ess_target} leaves nothing to solve; give a fraction between 0 and 1.")

    def scale(
        self, path: RewardPath, reward: Tensor, *, log_weights: Tensor, reward_scale: float, point: int, num_points: int
    ) -> Float64[Tensor, " B"]:
        """Return the solution for every group; `reward_scale` where even that keeps the ESS."""
        _check_point(reward_scale, point, num_points)
        check_matrix("log_weights", log_weights, path.shape)
        top = path.preview(reward, reward_scale)
        carried = as_float64(log_weights).to(top.device)
        # Particles that are, or are about to be, dead or invalid have no say in the scale of the others.
        living = torch.isfinite(top) & torch.isfinite(carried)
        target = self.ess_target * living.sum(dim=1)

        def keeps(scale: Tensor) -> Tensor:
            moved = torch.where(living, carried + path.preview(reward, scale), -torch.inf)
            return ess(moved) >= target

        high = torch.full_like(target, float(reward_scale), dtype=torch.float64)
        low = torch.minimum(path.scale.to(top.device), high)
        done_high = keeps(high)
        done_low = ~keeps(low) & ~done_high
        lower, upper = low, high
        for _ in range(_BISECTIONS):
            middle = (lower + upper) / 2
            good = keeps(middle)
            lower, upper = torch.where(good, middle, lower), torch.where(good, upper, middle)
        return torch.where(done_high, high, torch.where(done_low, low, lower))


def _check_point(reward_scale: float, point: int, num_points: int) -> None:
    check_non_negative("reward_scale", reward_scale)
    check_count("num_points", num_points)
    check_count("point", point, minimum=0)
    if point >= num_points:
        raise ValueError(f"point={point} but the run has {num_points} intermediate scores; count from 0.")
