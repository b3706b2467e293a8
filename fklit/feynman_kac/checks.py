"""Checks of arguments; each error says what was expected, what was given and how to fix it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` if it is an integer of at least `minimum`; a bool is not an integer here."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} is not an integer; give a whole number of at least {minimum}.")
    if value < minimum:
        raise ValueError(f"{name}={value} is too small; give a whole number of at least {minimum}.")
    return value


def check_fraction(name: str, value: object) -> float:
    """Return `value` as a float if it is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} is not a number; give one between 0 and 1.")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value} is outside [0, 1]; give a number between 0 and 1.")
    return float(value)


def check_non_negative(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r} is not a number; give a finite number of at least 0.")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}={value} is not accepted; give a finite number of at least 0.")
    return float(value)


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
