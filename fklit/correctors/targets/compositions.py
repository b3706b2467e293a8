"""The usual targets, each a few lines over the general one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from fklit.correctors.targets.expert import Expert
from fklit.correctors.targets.exponents import Exponent, times
from fklit.correctors.targets.target import LogDensities, Target
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt
from fklit.feynman_kac.potentials import Potential

Base = Expert | Target
"""An expert, or a target to build upon."""


def Annealed(model: Base, beta: Exponent, *, log_density: LogDensities = "auto") -> Target:  # noqa: N802
    """Return `q^beta`: low temperature for beta above 1, high temperature below.

    Args:
        model: an expert, or a target all of whose exponents are multiplied.
        beta: a number, or a function of time such as `LateRamp(3.0)`.
        log_density: see `Target`.
    """
    return Target(_scaled(model, beta), log_density=log_density)


def Product(  # noqa: N802
    models: Sequence[Base], exponents: Sequence[Exponent] | None = None, *, log_density: LogDensities = "auto"
) -> Target:
    """Return `prod_i q_i^exponent_i`.

    Args:
        models: experts or targets.
        exponents: one for each, of any sign; 1 if not given.
        log_density: see `Target`.
    """
    models = list(models)
    chosen: Sequence[Exponent] = [1.0] * len(models) if exponents is None else list(exponents)
    if len(chosen) != len(models):
        raise ValueError(f"{len(chosen)} exponents were given for {len(models)} models; give one for each.")
    terms = [term for model, exponent in zip(models, chosen, strict=True) for term in _scaled(model, exponent)]
    return Target(tuple(terms), log_density=log_density)


def GeometricAverage(  # noqa: N802
    models: Sequence[Base], weights: Sequence[float] | None = None
) -> Target:
    """Return `prod_i q_i^weight_i` with weights that sum to 1; equal weights if not given.

    Raises:
        ValueError: if they do not sum to 1.
    """
    models = list(models)
    chosen = [1.0 / max(len(models), 1)] * len(models) if weights is None else list(weights)
    if abs(sum(chosen) - 1.0) > 1e-9:
        raise ValueError(
            f"weights={chosen} sum to {sum(chosen):g}; those of a geometric average sum to 1 (Product takes any)."
        )
    return Product(models, chosen)


def Guided(conditional: Base, unconditional: Base, scale: Exponent) -> Target:  # noqa: N802
    """Return `q_conditional^scale * q_unconditional^(1 - scale)`, the target of classifier-free guidance.

    Args:
        conditional: the model with its condition.
        unconditional: the model without, or with a negative prompt.
        scale: guidance scale in the convention of diffusers, `s_u + scale (s_c - s_u)`: 1 is no guidance. The
            convention `(1 + w) s_c - w s_u` of Ho and Salimans has `scale = 1 + w`.
    """
    return Product([conditional, unconditional], [scale, _complement(scale)])


def GuidedProduct(unconditional: Base, conditionals: Sequence[Base], scale: Exponent) -> Target:  # noqa: N802
    """Return `prod_j q_unconditional^(1 - scale) q_j^scale`: a product of guided models."""
    conditionals = list(conditionals)
    rest = times(float(len(conditionals)), _complement(scale))
    return Product([unconditional, *conditionals], [rest, *[scale] * len(conditionals)])


def Composed(unconditional: Base, conditionals: Sequence[Base], scales: Sequence[float]) -> Target:  # noqa: N802
    """Return `q_unconditional^(1 - sum scales) prod_j q_j^scale_j`: several prompts, negative ones by negative scales.

    The exponents sum to 1, so that it is one guided model (Liu et al. 2022, arXiv 2206.01714).
    """
    scales = list(scales)
    return Product([unconditional, *conditionals], [1.0 - sum(scales), *scales])


def Tilted(  # noqa: N802
    model: Base,
    reward: Callable[..., Tensor],
    schedule: Exponent = 1.0,
    *,
    gradient: bool | Callable[..., Tensor] = True,
    timed: bool = False,
    potential: Potential | str = "difference",
    of: Literal["denoised", "sample"] = "denoised",
) -> Target:
    """Return the model's target times `exp(schedule(t) * reward(x))`.

    Args:
        model: an expert or a target without a tilt.
        reward: from x (B, K, *event) to (B, K); with `timed`, of (x, t).
        schedule: what multiplies the reward; a function of t that is 0 at t = 1 (`Ramp(0.0, 1.0)`) starts untilted.
        gradient: True for autograd, a function for a gradient in closed form, False for a black box, which is
            weighed by the potentials of FK steering.
        timed: whether the reward takes the time.
        potential: of a black box: "difference", "max", "sum", "terminal".
        of: what a black box scores before the end, the "denoised" prediction or the "sample" itself.

    Raises:
        ValueError: if the model is tilted already, or for arguments of the other kind of tilt.
    """
    base = Target(_scaled(model, 1.0)) if not isinstance(model, Target) else model
    if base.tilt is not None:
        raise ValueError("the target is tilted already; add the rewards up and tilt once.")
    if gradient is not False:
        closed = None if gradient is True else gradient
        return replace(base, tilt=Tilt(reward, schedule, gradient=closed, timed=timed))
    if timed:
        raise ValueError("timed=True needs a gradient; a black box is scored on denoised predictions.")
    return replace(base, tilt=BlackBoxTilt(reward, schedule, potential=potential, of=of))


class _Complement:
    """1 minus an exponent that changes in time."""

    def __init__(self, exponent: Callable[[float], float]) -> None:
        self.exponent = exponent

    def __call__(self, t: float) -> float:
        return 1.0 - self.exponent(t)


def _complement(exponent: Exponent) -> Exponent:
    return _Complement(exponent) if callable(exponent) else 1.0 - exponent


def _scaled(model: Base, exponent: Exponent) -> tuple[tuple[Expert, Exponent], ...]:
    if not isinstance(model, Target):
        return ((model, exponent),)
    if model.tilt is not None:
        raise ValueError("a tilted target cannot be raised or multiplied; build the product first and tilt it.")
    return tuple((expert, times(own, exponent)) for expert, own in model.terms)
