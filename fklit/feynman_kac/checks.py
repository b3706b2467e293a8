"""Checks of arguments; each error says what was expected, what was given and how to fix it."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def as_number(value: object) -> int | float | None:
    """Return a number of Python: of an integer or a float of any library, or of the one element of a tensor or array.

    NumPy's scalars register as numbers, and tensors and arrays of one element give theirs by `item()`.

    Returns:
        The number, or None for everything else. A bool is no number here.
    """
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    elif not isinstance(value, Real) and getattr(value, "size", None) == 1 and hasattr(value, "item"):
        one: Any = value
        value = one.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def check_count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int if it is an integer of at least `minimum`; a bool is not an integer here."""
    number = as_number(value)
    if not isinstance(number, int):
        raise TypeError(f"{name}={value!r} is not an integer; give a whole number of at least {minimum}.")
    if number < minimum:
        raise ValueError(f"{name}={number} is too small; give a whole number of at least {minimum}.")
    return number


def check_fraction(name: str, value: object) -> float:
    """Return `value` as a float if it is a number in [0, 1]."""
    number = as_number(value)
    if number is None:
        raise TypeError(f"{name}={value!r} is not a number; give one between 0 and 1.")
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name}={number} is outside [0, 1]; give a number between 0 and 1.")
    return float(number)


def check_non_negative(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number that is not negative."""
    number = as_number(value)
    if number is None:
        raise TypeError(f"{name}={value!r} is not a number; give a finite number of at least 0.")
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name}={number} is not accepted; give a finite number of at least 0.")
    return float(number)


def check_choice(name: str, value: str, accepted: Sequence[str]) -> None:
    """Raise unless `value` is one of `accepted`."""
    if value not in accepted:
        raise ValueError(f"{name}={value!r} is not known; use one of {', '.join(map(repr, accepted))}.")


def check_matrix(name: str, value: Tensor, shape: tuple[int, int] | None = None) -> None:
    """Raise unless `value` is a real tensor of shape (B, K), or exactly of `shape` if that is given."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; give a torch.Tensor of shape (groups, particles).")
    if value.dtype == torch.bool or value.dtype.is_complex:
        raise TypeError(f"{name} has dtype {value.dtype}; give real numbers, for example float32 or float64.")
    if shape is not None and tuple(value.shape) != shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} but the run has {shape[0]} groups of {shape[1]} particles; "
            f"give one value a particle, shape {shape}."
        )
    if value.ndim != 2 or value.shape[0] < 1 or value.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; give shape (groups, particles) with at least one of each."
        )
