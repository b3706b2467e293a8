"""The area under the curve within prompts, in closed form, and the prompts it is measured on."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "reward_auc.py"


@pytest.fixture(scope="module")
def reward_auc():
    spec = importlib.util.spec_from_file_location("reward_auc", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_within_a_prompt_ties_count_half(reward_auc):
    scores = torch.tensor([3.0, 2.0, 2.0, 0.0])
    right = torch.tensor([True, False, True, False])
    # pairs: 3 > 2, 3 > 0, 2 = 2, 2 > 0
    assert reward_auc.within_prompt_auc(scores, right) == pytest.approx(3.5 / 4)
    assert reward_auc.within_prompt_auc(-scores, right) == pytest.approx(0.5 / 4)
    assert reward_auc.within_prompt_auc(scores, torch.ones(4, dtype=torch.bool)) is None


def test_prompts_without_a_pair_do_not_count(reward_auc):
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    right = torch.tensor([[True, False], [True, True], [True, False]])
    found = reward_auc.summarize(scores, right, ["counting", "counting", "position"])
    assert (found["all"], found["counting"], found["position"]) == (0.5, 1.0, 0.0)
    assert (found["all, prompts"], found["counting, prompts"]) == (2, 1)
