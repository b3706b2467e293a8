"""Prompts and their indices: what is accepted, and what it becomes."""

import numpy as np
import pytest
import torch

from fklit.sampling.prompts import check_indices, check_metadata, check_prompts


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


def test_indices_are_whole_numbers_of_any_library():
    found = check_indices([torch.tensor(3), np.int64(0)], 2)
    assert found == [3, 0] and [type(index) for index in found] == [int, int]
    for wrong in ([0.5, 1], [True, 0], ["0", 1]):
        with pytest.raises(ValueError, match=r"prompt_indices expected 2 different numbers"):
            check_indices(wrong, 2)


def test_metadata_is_one_mapping_a_prompt():
    assert check_metadata(None, ["a", "b"]) == [{"prompt": "a"}, {"prompt": "b"}]
    assert check_metadata({"count": 2}, ["a"]) == [{"count": 2}]
    assert check_metadata(({"count": 2}, {}), ["a", "b"]) == [{"count": 2}, {}]
    for wrong in ([{}], [{}, {}, {}], [{}, "b"], {"count": 2}):
        with pytest.raises(ValueError, match=r"metadata expected 2 mapping\(s\), got"):
            check_metadata(wrong, ["a", "b"])
