"""Terms of a target, pairs of an expert and its exponent, and the arithmetic that builds targets from others."""

from collections.abc import Sequence
from typing import Any

from fklit.correctors.targets.expert import Expert
from fklit.correctors.targets.exponents import Exponent, check_exponent, times
from fklit.correctors.targets.paths.noise_path import NoisePath

Terms = tuple[tuple[Expert, Exponent], ...]


class DifferentPathsError(ValueError):
    """The experts of a target are noised differently, so no one process serves them all."""


def check_terms(terms: object) -> Terms:
    """Return terms whose experts and exponents are such.

    Raises:
        TypeError, ValueError: for terms that are none.
    """
    if not isinstance(terms, Sequence) or not terms:
        raise ValueError("expected at least one pair (expert, exponent), got no experts; a target needs one.")
    pairs = []
    for number, term in enumerate(terms):
        if not isinstance(term, Sequence) or len(term) != 2:
            raise TypeError(f"expected a pair (expert, exponent), got term {number} = {term!r}; pass a list of pairs.")
        expert, exponent = term
        if not hasattr(expert, "path") or not (hasattr(expert, "score") or hasattr(expert, "log_probs")):
            raise TypeError(
                f"expected an expert with a noise path `path` and `score(x, t)` (`log_probs(tokens, t)` for tokens), "
                f"but expert {number} is a {type(expert).__name__}; pass ScoreModel(...).given() or "
                "GaussianMixture(...).on(path)."
            )
        pairs.append((expert, check_exponent(f"exponent {number}", exponent)))
    return tuple(pairs)


def check_one_path(experts: Sequence[Expert]) -> None:
    """Raise a `DifferentPathsError` unless all experts share one noise path."""
    first: NoisePath = experts[0].path
    for number, expert in enumerate(experts[1:], start=1):
        if expert.path != first:
            raise DifferentPathsError(
                f"expected experts on one noise path, but expert 0 is on {first} and expert {number} on {expert.path}; "
                "an EDM denoiser serves any path: ScoreModel(..., prediction='edm')."
            )


def raised_terms(model: Any, exponent: Exponent) -> Terms:
    """Return the terms of `model^exponent`.

    Args:
        model: an expert, or a target, whose exponents are all multiplied.
        exponent: a number, or a function of time.

    Raises:
        ValueError: for a tilted target.
    """
    if not hasattr(model, "terms"):
        return ((model, exponent),)
    if model.tilt is not None:
        raise ValueError(
            "expected a target without a tilt, got a tilted one, which cannot be raised or multiplied; build the "
            "product first and tilt it."
        )
    return tuple((expert, times(own, exponent)) for expert, own in model.terms)


def product_terms(models: Sequence[Any], exponents: Sequence[Exponent] | None) -> Terms:
    """Return the terms of `prod_i model_i^exponent_i`; exponents are 1 if not given.

    Raises:
        ValueError: for another number of exponents than of models.
    """
    chosen: Sequence[Exponent] = [1.0] * len(models) if exponents is None else list(exponents)
    if len(chosen) != len(models):
        raise ValueError(
            f"expected one exponent for each model, got {len(chosen)} exponents for {len(models)} models; give as many."
        )
    return tuple(term for model, exponent in zip(models, chosen, strict=True) for term in raised_terms(model, exponent))
