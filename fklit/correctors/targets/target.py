"""Targets as data: experts with exponents, and a tilt.

At every time t the target is `gamma_t(x) = prod_i q_{i,t}(x)^{beta_i(t)} * exp(rho(x, t))`, unnormalized. Annealing,
guidance and products differ in nothing but the list of terms, which the class methods write down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.targets.dispersion import weighted_sum
from fklit.correctors.targets.evaluation import Evaluation, check_scores, check_tilt, expert_scores
from fklit.correctors.targets.expert import Expert, HasLogDensity, HasMoments
from fklit.correctors.targets.exponents import Exponent, complement, times, value_at
from fklit.correctors.targets.paths.noise_path import NoisePath
from fklit.correctors.targets.terms import Terms, check_one_path, check_terms, product_terms, raised_terms
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt
from fklit.feynman_kac.potentials import Potential

LogDensities = Literal["auto", "exact", "ito"]


@dataclass(frozen=True)
class Target:
    """Experts with exponents, and a tilt.

    ```python
    Target.annealed(expert, 2.5)
    Target.guided(conditional, unconditional, 4.0)
    Target.tilted(Target.product([first, second]), reward, Ramp(0.0, 1.0))
    ```

    In YAML the class methods are class paths: `class_path: fklit.Target.annealed`.

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

    terms: Terms
    tilt: Tilt | BlackBoxTilt | None = None
    log_density: LogDensities = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", check_terms(self.terms))
        check_choice("log_density", self.log_density, ("auto", "exact", "ito"))
        if self.tilt is not None and not isinstance(self.tilt, Tilt | BlackBoxTilt):
            raise TypeError(f"expected a Tilt or a BlackBoxTilt, got tilt={self.tilt!r}; use Target.tilted(...).")
        check_one_path(self.experts)
        if self.log_density == "exact" and not self.has_log_densities:
            raise ValueError(
                "expected experts with log_density(x, t), got one without and log_density='exact'; use 'ito' or 'auto'."
            )

    # jsonargparse reads the return annotations: it does not resolve `Self`, so they name the class.

    @classmethod
    def annealed(cls, model: "Expert | Target", beta: Exponent, *, log_density: LogDensities = "auto") -> "Target":
        """Return `q^beta`: low temperature for beta above 1, high temperature below.

        Args:
            model: an expert, or a target all of whose exponents are multiplied.
            beta: a number, or a function of time such as `Ramp.late(3.0)`.
            log_density: see `Target`.
        """
        return cls(raised_terms(model, beta), log_density=log_density)

    @classmethod
    def product(
        cls,
        models: Sequence["Expert | Target"],
        exponents: Sequence[Exponent] | None = None,
        *,
        log_density: LogDensities = "auto",
    ) -> "Target":
        """Return `prod_i q_i^exponent_i`.

        Args:
            models: experts or targets.
            exponents: one for each, of any sign; 1 if not given.
            log_density: see `Target`.
        """
        return cls(product_terms(list(models), exponents), log_density=log_density)

    @classmethod
    def geometric_average(cls, models: Sequence["Expert | Target"], weights: Sequence[float] | None = None) -> "Target":
        """Return `prod_i q_i^weight_i` with weights that sum to 1; equal weights if not given.

        Raises:
            ValueError: if they do not sum to 1.
        """
        models = list(models)
        chosen = [1.0 / max(len(models), 1)] * len(models) if weights is None else list(weights)
        if abs(sum(chosen) - 1.0) > 1e-9:
            raise ValueError(
                f"expected weights that sum to 1, got weights={chosen} of sum {sum(chosen):g}; Target.product takes "
                "any exponents."
            )
        return cls.product(models, chosen)

    @classmethod
    def guided(cls, conditional: "Expert | Target", unconditional: "Expert | Target", scale: Exponent) -> "Target":
        """Return `q_conditional^scale * q_unconditional^(1 - scale)`, the target of classifier-free guidance.

        Args:
            conditional: the model with its condition.
            unconditional: the model without, or with a negative prompt.
            scale: guidance scale in the convention of diffusers, `s_u + scale (s_c - s_u)`: 1 is no guidance. The
                convention `(1 + w) s_c - w s_u` of Ho and Salimans has `scale = 1 + w`.
        """
        return cls.product([conditional, unconditional], [scale, complement(scale)])

    @classmethod
    def guided_product(
        cls, unconditional: "Expert | Target", conditionals: Sequence["Expert | Target"], scale: Exponent
    ) -> "Target":
        """Return `prod_j q_unconditional^(1 - scale) q_j^scale`: a product of guided models."""
        rest = times(float(len(conditionals)), complement(scale))
        return cls.product([unconditional, *conditionals], [rest, *[scale] * len(conditionals)])

    @classmethod
    def composed(
        cls, unconditional: "Expert | Target", conditionals: Sequence["Expert | Target"], scales: Sequence[float]
    ) -> "Target":
        """Return `q_unconditional^(1 - sum scales) prod_j q_j^scale_j`, one guided model of several conditions.

        The exponents sum to 1 (Liu et al. 2022, arXiv 2206.01714); a negative scale makes a negative prompt.
        """
        return cls.product([unconditional, *conditionals], [1.0 - sum(scales), *scales])

    @classmethod
    def tilted(
        cls,
        model: "Expert | Target",
        reward: Callable[..., Tensor],
        reward_scale: Exponent = 1.0,
        *,
        gradient: bool | Callable[..., Tensor] = True,
        time_dependent: bool = False,
        potential: Potential | str = "difference",
        reward_input: Literal["denoised", "sample"] = "denoised",
    ) -> "Target":
        """Return the model's target times `exp(reward_scale(t) * reward(x))`.

        Args:
            model: an expert or a target without a tilt.
            reward: from x (B, K, *event) to (B, K); with `time_dependent`, of (x, t).
            reward_scale: a number, or a function of t that is 0 at t = 1 (`Ramp(0.0, 1.0)`) and so starts untilted.
            gradient: True for autograd, a function for a gradient in closed form, False for a black box, which is
                weighted by the potentials of FK steering.
            time_dependent: whether the reward takes the time.
            potential: of a black box: "difference", "max", "sum", "terminal".
            reward_input: what a black box scores before the end, the "denoised" prediction or the "sample" itself.

        Raises:
            ValueError: if the model is tilted already, or for arguments of the other kind of tilt.
        """
        base = model if isinstance(model, Target) else cls(raised_terms(model, 1.0))
        if base.tilt is not None:
            raise ValueError("expected a target without a tilt, got a tilted one; add the rewards up and tilt once.")
        if gradient is not False:
            closed = None if gradient is True else gradient
            return replace(base, tilt=Tilt(reward, reward_scale, gradient=closed, time_dependent=time_dependent))
        if time_dependent:
            raise ValueError(
                "expected a reward with a gradient, got gradient=False and time_dependent=True; a black box is scored "
                "on denoised predictions, without a time."
            )
        return replace(base, tilt=BlackBoxTilt(reward, reward_scale, potential=potential, reward_input=reward_input))

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
        """The shape of one sample, or None if no expert has an `event_shape`."""
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

    def exponents_change(self, grid: Sequence[float]) -> bool:
        """Return whether an exponent differs between two of these times."""
        return len({self.exponents(t) for t in grid}) > 1

    def evaluate(
        self, x: Tensor, t: float, *, log_densities: bool = False, tilt: bool = True, finite: bool = True
    ) -> Evaluation:
        """Call every distinct expert once, those of one family together.

        Args:
            x: (B, K, *event).
            t: the time.
            log_densities: whether to compute the exact log densities, too.
            tilt: whether a tilt with a gradient is evaluated.
            finite: whether NaN and infinite scores raise.

        Raises:
            NonFiniteScoreError: by `finite`.
            ValueError: for a score of another shape than that of x.
        """
        scores, densities = expert_scores(self.experts, x, t, log_densities=log_densities)
        check_scores(scores, x, t, finite=finite)
        exponents = self.exponents(t)
        combined = weighted_sum(scores, exponents)
        reward, value, gradient = None, None, None
        if tilt and isinstance(self.tilt, Tilt):
            reward, gradient = self.tilt.reward_and_gradient(x, t)
            if finite:
                check_tilt(reward, gradient, t)
            value = self.tilt.scaled(reward, t)
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
            raise ValueError(
                "expected experts with log_density(x, t), got one without, so that the target's density is not known; "
                "use experts with exact densities."
            )
        pairs = zip(self.exponents(t), self.log_densities(x, t), strict=True)
        total = sum((exponent * density for exponent, density in pairs), torch.zeros((), dtype=torch.float64))
        assert isinstance(total, Tensor)
        return total + self.tilt.value(x, t) if isinstance(self.tilt, Tilt) else total
