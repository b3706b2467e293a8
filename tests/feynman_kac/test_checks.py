"""Checks of arguments at their boundaries: the last value that passes and the first that does not."""

import math

import pytest
import torch

from fklit.feynman_kac.checks import check_choice, check_count, check_fraction, check_matrix, check_non_negative


def test_counts() -> None:
    assert check_count("n", 1) == 1 and check_count("n", 0, minimum=0) == 0 and check_count("n", 3, minimum=3) == 3
    with pytest.raises(ValueError, match=r"n=0 is too small; give a whole number of at least 1"):
        check_count("n", 0)
    with pytest.raises(ValueError, match=r"n=2 is too small; give a whole number of at least 3"):
        check_count("n", 2, minimum=3)
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match=r"is not an integer"):
            check_count("n", wrong)


def test_fractions_include_both_ends() -> None:
    for value in (0, 0.0, 0.5, 1, 1.0):
        checked = check_fraction("f", value)
        assert checked == value and type(checked) is float
    for wrong in (-1e-9, 1 + 1e-9, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"is outside \[0, 1\]"):
            check_fraction("f", wrong)
    for wrong in (True, False, "0.5", None):
        with pytest.raises(TypeError, match=r"is not a number"):
            check_fraction("f", wrong)


def test_numbers_that_are_not_negative() -> None:
    for value in (0, 0.0, 1e-300, 1, 1e300):
        checked = check_non_negative("s", value)
        assert checked == value and type(checked) is float
    for wrong in (-1e-300, -1, math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"is not accepted; give a finite number of at least 0"):
            check_non_negative("s", wrong)
    for wrong in (True, False, "1", None):
        with pytest.raises(TypeError, match=r"is not a number"):
            check_non_negative("s", wrong)


def test_choices() -> None:
    check_choice("c", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"c='d' is not known; use one of 'a', 'b'"):
        check_choice("c", "d", ("a", "b"))


def test_matrices() -> None:
    for value in (torch.zeros(1, 1), torch.zeros(2, 3).long(), torch.zeros(2, 3).half()):
        check_matrix("m", value)
        check_matrix("m", value, tuple(value.shape))
    for shape in ((3,), (0, 2), (2, 0), (1, 2, 3), ()):
        with pytest.raises(ValueError, match=r"give shape \(groups, particles\) with at least one of each"):
            check_matrix("m", torch.zeros(shape))
    with pytest.raises(ValueError, match=r"m has shape \(2, 3\) but the run has 3 groups of 2 particles"):
        check_matrix("m", torch.zeros(2, 3), (3, 2))
    for dtype in (torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=r"give real numbers"):
            check_matrix("m", torch.zeros(2, 3, dtype=dtype))
    with pytest.raises(TypeError, match=r"m is a list; give a torch\.Tensor"):
        check_matrix("m", [[0.0]])
