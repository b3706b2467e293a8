"""Descriptions of settings: equal for what behaves alike, different for what does not, and honest about the rest."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from fklit.feynman_kac.potentials import Difference, Max
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Linear
from fklit.rewards import Clipped, Function, Min, WeightedSum
from fklit.rewards.base import Reward
from fklit.sampling.describe import describe, settings_hash


def first(images):
    return images[:, 0].mean((1, 2))


def second(images):
    return images[:, 1].mean((1, 2))


class Keeps(Reward):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def score(self, samples, prompts):
        return samples.mean((1, 2, 3)) * self.weight


class Forgets(Keeps):
    def __init__(self, factor):
        super().__init__(1.0)
        self._hidden = factor


@dataclass(frozen=True)
class Plain:
    number: float


@pytest.mark.parametrize(
    "values",
    [
        (None, True, 1, 2, 0.5, "a", "b", [1], [1, 2], {"a": 1}, {"a": 2}),
        (float("inf"), float("-inf")),
        (torch.float32, torch.float16, torch.device("cpu")),
        (torch.zeros(2), torch.ones(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64), torch.tensor(3)),
        (np.zeros(3), np.ones(3), np.zeros((3, 1))),
        (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red"), Image.new("RGB", (1, 4))),
        (Difference(), Difference("statistic"), Max()),
        (Linear(0.0), Linear(0.5)),
        (Schedule(), Schedule(every=2), Schedule(indices=())),
        (Plain(1.0), Plain(2.0)),
        (first, second),
        (Function(first), Function(second), Function("tests:first"), Function(first, max_batch=2)),
        (Keeps(1.0), Keeps(2.0)),
        (
            WeightedSum([Keeps(1.0), Keeps(2.0)], [1.0, 2.0]),
            WeightedSum([Keeps(1.0), Keeps(2.0)], [1.0, 3.0]),
            WeightedSum([Keeps(1.0), Keeps(3.0)], [1.0, 2.0]),
            Min([Keeps(1.0), Keeps(2.0)]),
            Clipped(Keeps(1.0), low=0.0),
            Clipped(Keeps(1.0), low=0.5),
            Clipped(Keeps(2.0), low=0.0),
        ),
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_different_things_differ_and_equal_things_do_not(values):
    texts = [json.dumps(describe(value), sort_keys=True, allow_nan=False) for value in values]
    assert len(set(texts)) == len(values)
    assert [json.dumps(describe(value), sort_keys=True) for value in values] == texts


def test_files_stand_for_their_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.bin").write_bytes(b"same")
    assert describe(str(tmp_path / "a")) == describe(tmp_path / "b") == describe(f"local-dir:{tmp_path / 'a'}")
    (tmp_path / "b" / "weights.bin").write_bytes(b"other")
    assert describe(str(tmp_path / "a")) != describe(str(tmp_path / "b"))


def test_a_word_is_a_word_even_if_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red").write_text("x")
    assert describe("red") == "red"


def test_an_object_that_hides_an_argument_is_refused():
    with pytest.raises(TypeError, match=r"Forgets does not keep its argument 'factor' .* set `self\.factor`"):
        describe(Forgets(2.0))


def test_loading_a_reward_does_not_change_it():
    reward = Function(first)
    before = describe(reward)
    reward(torch.zeros(2, 3, 4, 4))
    assert describe(reward) == before


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert settings_hash({"a": 1, "b": [2]}) == settings_hash({"b": [2], "a": 1}) != settings_hash({"a": 1, "b": [3]})


def test_rewards_that_ask_elsewhere_are_told_apart_by_what_they_ask():
    """Not by how calls are made: more patience does not change a score."""
    from fklit.rewards import ChatReward, HTTPReward, Product, SoftTIFA, VQAScore

    first = HTTPReward("http://localhost:1", "clip", api_key_env="KEY")
    assert describe(first) == describe(HTTPReward("http://localhost:1/score", "clip", timeout=3.0, max_calls=7))
    assert describe(first) != describe(HTTPReward("http://localhost:2", "clip"))
    assert describe(first) != describe(HTTPReward("http://localhost:1", "clip", metric="MQ"))
    chat = ChatReward("http://localhost:1/v1", "qwen", body={"seed": 1})
    assert describe(chat) == describe(ChatReward("http://localhost:1/v1", "qwen", body={"seed": 1}, concurrency=9))
    assert describe(chat) != describe(ChatReward("http://localhost:1/v1", "qwen", body={"seed": 2}))
    kinds = [(dtype, mean) for dtype in ("auto", "float32") for mean in ("geometric", "arithmetic")]
    judges = [SoftTIFA(VQAScore("owner/name", dtype=dtype), mean=mean) for dtype, mean in kinds]
    assert len({settings_hash(describe(Product([judge, first]))) for judge in judges}) == 4
