"""Checks of arguments, for all packages; the engine, which imports nothing of fklit, holds them."""

from fklit.feynman_kac.checks import (
    as_number,
    check_choice,
    check_count,
    check_fraction,
    check_matrix,
    check_non_negative,
)

__all__ = ["as_number", "check_choice", "check_count", "check_fraction", "check_matrix", "check_non_negative"]
