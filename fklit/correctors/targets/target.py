"""Targets as data: experts with exponents, and a tilt.

At every time t the target is `gamma_t(x) = prod_i q_{i,t}(x)^{beta_i(t)} * exp(rho(x, t))`, unnormalized. Annealing,
guidance and products differ in nothing but the list; `targets` writes the usual ones down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.targets.expert import Expert, HasLogDensity, HasMoments
from fklit.correctors.targets.exponents import Exponent, check_exponent, value_at
from fklit.correctors.targets.path import NoisePath
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt

LogDensities = Literal["auto", "exact", "ito"]


class DifferentPathsError(ValueError):
    """The experts of a target are noised differently, so no one process serves them all."""


class ImproperTargetError(ValueError):
    """The target has no finite integral: its tails grow."""


class NonFiniteScoreError(ValueError):
    """An expert returned a score that is NaN or infinite."""


def inner(left: Tensor, right: Tensor) -> Float64[Tensor, "B K"]:
    """Return the inner product of each particle, (B, K), summed in float64, of tensors (B, K, *event)."""
    return (left * right).flatten(2).sum(dim=2, dtype=torch.float64)


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
        log_densities: `log q_i`, each (B, K) float64, or None if not asked for.
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
    def spread(self) -> Float64[Tensor, "B K"]:
        """`|S_q|^2 - sum_i beta_i |s_i|^2`, (B, K), without the cancellation where the experts agree."""
        result = (self.total_exponent - 1.0) * inner(self.score, self.score)
        for exponent, score in zip(self.exponents, self.scores, strict=True):
            away = score - self.score
            result = result - exponent * inner(away, away)
        return result


@dataclass(frozen=True)
class Target:
    """Experts with exponents, and a tilt.

    Attributes:
        terms: pairs of an expert and its exponent, a number of any sign or a function of the time t. The same expert
            may occur in several terms; it is evaluated once.
        tilt: `Tilt` or `BlackBoxTilt`, or None.
        log_density: where exponents change in time the weight holds `log q_i`: "exact" from the experts, "ito" carried
            along each path by its Ito estimate (which needs zeta = 1), "auto" exact where every expert has it.

    Raises:
        DifferentPathsError: if the experts are not on one noise path.
        TypeError, ValueError: for terms that are none.
    """

    terms: tuple[tuple[Expert, Exponent], ...]
    tilt: Tilt | BlackBoxTilt | None = None
    log_density: LogDensities = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.terms, Sequence) or not self.terms:
            raise ValueError("a target was given no experts; give at least one pair (expert, exponent).")
        pairs = []
        for number, term in enumerate(self.terms):
            if not isinstance(term, Sequence) or len(term) != 2:
                raise TypeError(f"term {number} is {term!r}; give a pair (expert, exponent).")
            expert, exponent = term
            if not hasattr(expert, "path") or not (hasattr(expert, "score") or hasattr(expert, "log_probs")):
                raise TypeError(
                    f"expert {number} is a {type(expert).__name__}; give an object with a noise path `path` and a "
                    "function `score(x, t)`, such as ScoreModel(...).given() or GaussianMixture(...).on(path), or, "
                    "for tokens, `log_probs(tokens, t)`."
                )
            pairs.append((expert, check_exponent(f"exponent {number}", exponent)))
        object.__setattr__(self, "terms", tuple(pairs))
        check_choice("log_density", self.log_density, ("auto", "exact", "ito"))
        if self.tilt is not None and not isinstance(self.tilt, Tilt | BlackBoxTilt):
            raise TypeError(f"tilt is a {type(self.tilt).__name__}; give a Tilt or a BlackBoxTilt.")
        first = self.experts[0].path
        for number, expert in enumerate(self.experts[1:], start=1):
            if expert.path != first:
                raise DifferentPathsError(
                    f"expert 0 is on {first} and expert {number} on {expert.path}; all experts of a target must share "
                    "one noise path (an EDM denoiser serves any: ScoreModel(..., prediction='edm'))."
                )
        if self.log_density == "exact" and not self.has_log_densities:
            raise ValueError(
                "log_density='exact' was asked for, but an expert has no log_density(x, t); use 'ito' or 'auto'."
            )

    @cached_property
    def experts(self) -> tuple[Expert, ...]:
        """The distinct experts."""
        return tuple({id(expert): expert for expert, _ in self.terms}.values())

    @property
    def path(self) -> NoisePath:
        """The noise path of all experts."""
        path: NoisePath = self.experts[0].path
        return path

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, if an expert tells it."""
        shapes = (getattr(expert, "event_shape", None) for expert in self.experts)
        return next((tuple(shape) for shape in shapes if shape is not None), None)

    @property
    def has_log_densities(self) -> bool:
        """Whether every expert has an exact log density."""
        return all(isinstance(expert, HasLogDensity) for expert in self.experts)

    @property
    def has_moments(self) -> bool:
        """Whether every expert has a Gaussian surrogate."""
        return all(isinstance(expert, HasMoments) for expert in self.experts)

    def exponents(self, t: float) -> tuple[float, ...]:
        """Return the exponent of each distinct expert at time t."""
        sums = {id(expert): 0.0 for expert in self.experts}
        for expert, exponent in self.terms:
            sums[id(expert)] += value_at(exponent, t)
        return tuple(sums.values())

    def changes(self, times: Sequence[float]) -> bool:
        """Whether an exponent differs between two of these times."""
        return len({self.exponents(t) for t in times}) > 1

    def evaluate(
        self, x: Tensor, t: float, *, log_densities: bool = False, tilt: bool = True, finite: bool = True
    ) -> Evaluation:
        """Call every distinct expert once, those of one family together.

        Args:
            x: (B, K, *event).
            t: the time.
            log_densities: whether the exact log densities are wanted, too.
            tilt: whether a tilt with a gradient is evaluated.
            finite: whether NaN and infinite scores raise.

        Raises:
            NonFiniteScoreError: by `finite`.
            ValueError: for a score of another shape than that of x.
        """
        scores, densities = self._scores(x, t, log_densities=log_densities)
        for number, score in enumerate(scores):
            if score.shape != x.shape:
                raise ValueError(
                    f"expert {number} returned a score of shape {tuple(score.shape)} for samples {tuple(x.shape)}; a "
                    "score has the shape of the samples."
                )
            if finite and not bool(torch.isfinite(score).all()):
                wrong = int((~torch.isfinite(score)).flatten(2).any(dim=2).sum())
                raise NonFiniteScoreError(
                    f"expert {number} returned NaN or infinite scores for {wrong} of {score.shape[0] * score.shape[1]} "
                    f"particles at t={t:g}; mend the expert, end the grid earlier, or set on_nan='drop' to give such "
                    "particles weight zero."
                )
        exponents = self.exponents(t)
        combined = torch.zeros_like(x)
        for exponent, score in zip(exponents, scores, strict=True):
            combined = combined + exponent * score
        reward, value, gradient = None, None, None
        if tilt and isinstance(self.tilt, Tilt):
            reward, gradient = self.tilt.reward_and_gradient(x, t)
            value = value_at(self.tilt.schedule, t) * reward
        return Evaluation(x, t, exponents, tuple(scores), combined, value, gradient, reward, densities)

    def log_densities(self, x: Tensor, t: float) -> tuple[Float64[Tensor, "B K"], ...]:
        """Return the exact `log q_i(x, t)` of each distinct expert."""
        found = []
        for expert in self.experts:
            assert isinstance(expert, HasLogDensity)
            found.append(expert.log_density(x, t).to(torch.float64))
        return tuple(found)

    def log_gamma(self, x: Tensor, t: float) -> Float64[Tensor, "B K"]:
        """Return the log of the unnormalized target at x, (B, K), with a tilt that has a gradient.

        Raises:
            ValueError: if an expert has no log density.
        """
        if not self.has_log_densities:
            raise ValueError("an expert has no log_density(x, t), so the target's density is not known.")
        terms = zip(self.exponents(t), self.log_densities(x, t), strict=True)
        total = sum((exponent * density for exponent, density in terms), torch.zeros((), dtype=torch.float64))
        assert isinstance(total, Tensor)
        return total + self.tilt.value(x, t) if isinstance(self.tilt, Tilt) else total

    def _scores(
        self, x: Tensor, t: float, *, log_densities: bool
    ) -> tuple[list[Tensor], tuple[Float64[Tensor, "B K"], ...] | None]:
        scores: dict[int, Tensor] = {}
        densities: dict[int, Tensor] = {}
        families: dict[int, list[Expert]] = {}
        for expert in self.experts:
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
        ordered = [scores[id(expert)] for expert in self.experts]
        if not log_densities:
            return ordered, None
        for expert in self.experts:
            if id(expert) not in densities:
                assert isinstance(expert, HasLogDensity)
                densities[id(expert)] = expert.log_density(x, t)
        return ordered, tuple(densities[id(expert)].to(torch.float64) for expert in self.experts)
