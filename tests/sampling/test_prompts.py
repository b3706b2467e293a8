"""Prompts and their indices: what is accepted, and what it becomes."""

import pytest

from fklit.sampling.prompts import check_indices, check_prompts


def test_prompts_become_a_list():
    assert check_prompts("two cats") == ["two cats"]
    assert check_prompts(("a", "")) == ["a", ""] and check_prompts([""]) == [""]
    for wrong in ([], (), ["a", 3], [None]):
        with pytest.raises(ValueError, match="prompts expected at least one string"):
            check_prompts(wrong)


def test_indices_count_from_zero_if_none_are_given():
    assert check_indices(None, 3) == [0, 1, 2]
    assert check_indices((7, 0), 2) == [7, 0]
    for wrong in ([0], [0, 1, 2], [1, 1], [0, -1]):
        with pytest.raises(ValueError, match=r"prompt_indices expected 2 different numbers of at least 0, got"):
            check_indices(wrong, 2)
