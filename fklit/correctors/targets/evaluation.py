"""One evaluation of a target at the particles: each distinct expert is called once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.targets.dispersion import inner, subtract_dispersion
from fklit.correctors.targets.expert import Expert, HasLogDensity


class NonFiniteScoreError(ValueError):
    """A score is NaN or infinite: an expert's, or that of a tilt, which the message names."""


@dataclass(frozen=True)
class Evaluation:
    """What is known of a target at samples x and time t, after one call of each expert.

    Attributes:
        x: (B, K, *event).
        t: the time.
        exponents: one for each distinct expert.
        scores: their scores, each of the shape of x.
        score: `S_q`, the sum of exponents times scores.
        tilt: `rho(x, t)`, (B, K), or None without a tilt that has a gradient.
        tilt_gradient: its gradient, or None.
        reward: the reward itself, (B, K), which the tilt multiplies, or None.
        log_densities: `log q_i`, each (B, K) float64, or None if not requested.
    """

    x: Tensor
    t: float
    exponents: tuple[float, ...]
    scores: tuple[Tensor, ...]
    score: Tensor
    tilt: Tensor | None = None
    tilt_gradient: Tensor | None = None
    reward: Tensor | None = None
    log_densities: tuple[Tensor, ...] | None = None

    @property
    def total_exponent(self) -> float:
        """`B`, the sum of the exponents."""
        return sum(self.exponents)

    @property
    def total_score(self) -> Tensor:
        """`S`, the gradient of `log gamma_t`: the combined score and the tilt's."""
        return self.score if self.tilt_gradient is None else self.score + self.tilt_gradient

    @cached_property
    def score_dispersion(self) -> Float64[Tensor, "B K"]:
        """`|S_q|^2 - sum_i beta_i |s_i|^2`, (B, K), without the cancellation where the experts agree."""
        # = (B - 1) |S_q|^2 - sum_i beta_i |s_i - S_q|^2
        excess = (self.total_exponent - 1.0) * inner(self.score, self.score)
        return subtract_dispersion(excess, self.scores, self.exponents, self.score)


def expert_scores(
    experts: Sequence[Expert], x: Tensor, t: float, *, log_densities: bool
) -> tuple[list[Tensor], tuple[Float64[Tensor, "B K"], ...] | None]:
    """Return the score of each expert and, if requested, its log density; those of one family in one call.

    Args:
        experts: distinct experts.
        x: (B, K, *event).
        t: the time.
        log_densities: whether exact log densities are requested; every expert must have them then.
    """
    scores: dict[int, Tensor] = {}
    densities: dict[int, Tensor] = {}
    families: dict[int, list[Expert]] = {}
    for expert in experts:
        both: Any = getattr(expert, "score_and_log_density", None)
        family = getattr(expert, "family", None)
        if log_densities and both is not None:
            scores[id(expert)], densities[id(expert)] = both(x, t)
        elif family is not None:
            families.setdefault(id(family), []).append(expert)
        else:
            scores[id(expert)] = expert.score(x, t)
    for members in families.values():
        shared: Any = members[0]
        for expert, score in zip(members, shared.family.scores(members, x, t), strict=True):
            scores[id(expert)] = score
    ordered = [scores[id(expert)] for expert in experts]
    if not log_densities:
        return ordered, None
    for expert in experts:
        if id(expert) not in densities:
            assert isinstance(expert, HasLogDensity)
            densities[id(expert)] = expert.log_density(x, t)
    return ordered, tuple(densities[id(expert)].to(torch.float64) for expert in experts)


def check_scores(scores: Sequence[Tensor], x: Tensor, t: float, *, finite: bool) -> None:
    """Raise unless each score has the shape of x and, with `finite`, finite entries.

    Raises:
        NonFiniteScoreError: for NaN and infinite entries.
        ValueError: for another shape.
    """
    for number, score in enumerate(scores):
        if score.shape != x.shape:
            raise ValueError(
                f"expected a score of the samples' shape {tuple(x.shape)}, got {tuple(score.shape)} from expert "
                f"{number}; return one number for each coordinate."
            )
        if finite and not bool(torch.isfinite(score).all()):
            if not bool(torch.isfinite(x).all()):
                raise NonFiniteScoreError(
                    f"expected finite samples, got NaN or infinity at t={t:g} before any expert was called; the "
                    "target has no finite integral, or the steps are too large for it; take more, or set on_nan='drop'."
                )
            wrong = int((~torch.isfinite(score)).flatten(2).any(dim=2).sum())
            raise NonFiniteScoreError(
                f"expected finite scores, got NaN or infinity from expert {number} for {wrong} of "
                f"{score.shape[0] * score.shape[1]} particles at t={t:g}; fix the expert, end the grid earlier, or set "
                "on_nan='drop' to give such particles weight zero."
            )


def check_tilt(reward: Tensor, gradient: Tensor, t: float) -> None:
    """Raise a `NonFiniteScoreError` that names the tilt unless reward and gradient are finite.

    Args:
        reward: (B, K).
        gradient: (B, K, *event).
        t: the time.
    """
    for name, value in (("reward", reward), ("gradient", gradient)):
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteScoreError(
                f"expected a finite {name} of the tilt, got NaN or infinity at t={t:g}; bound the reward, let its "
                "scale grow from 0 with Ramp(0.0, scale), or set on_nan='drop'."
            )
