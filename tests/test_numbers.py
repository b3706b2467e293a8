"""Numbers of NumPy and torch are numbers in every setting, and nothing else is."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import fklit
from fklit.checks import as_number, check_count, check_fraction, check_non_negative
from fklit.feynman_kac import Adaptive, Linear, group_generators
from fklit.sampling.prompts import check_indices, check_metadata
from fklit.sampling.settings import ParticleSettings, RewardSettings

NUMBERS = [
    (3, 3), (0.5, 0.5), (np.int64(4), 4), (np.uint8(4), 4), (np.float32(0.5), 0.5), (np.float64(0.25), 0.25),
    (np.float16(0.5), 0.5), (torch.tensor(3), 3), (torch.tensor([2.5]), 2.5), (torch.tensor([[7]]), 7),
    (torch.tensor(0.5, dtype=torch.bfloat16), 0.5), (np.array(3), 3), (np.array([0.5]), 0.5), (Fraction(1, 2), 0.5),
]  # fmt: skip
OTHERS = [
    True, np.bool_(True), np.array(True), torch.tensor(True), "3", None, 1j, np.complex64(1), torch.tensor(1j),
    torch.tensor([1, 2]), np.array([1.0, 2.0]), [3], torch.zeros(0), np.zeros(0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=repr)
def test_numbers_of_every_library_are_numbers(value, expected):
    number = as_number(value)
    assert number == expected and type(number) is type(expected)
    if isinstance(expected, int):
        assert type(check_count("n", value)) is int
    assert type(check_non_negative("n", value)) is float
    if expected <= 1:
        assert check_fraction("n", value) == expected


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_nothing_else_is_a_number(value):
    assert as_number(value) is None
    for check in (check_count, check_fraction, check_non_negative):
        with pytest.raises(TypeError, match=r"n=.* is not a"):
            check("n", value)


def test_settings_hold_numbers_of_python():
    particles = ParticleSettings(
        num_particles=np.int64(4), ess_threshold=np.float32(0.5), seed=torch.tensor(3), max_batch=np.int32(2)
    )
    assert particles == ParticleSettings(num_particles=4, ess_threshold=0.5, seed=3, max_batch=2)
    assert [type(value) for value in (particles.num_particles, particles.ess_threshold, particles.seed)] == [
        int, float, int,
    ]  # fmt: skip
    reward = RewardSettings(reward=lambda x: x, reward_scale=np.float32(3), reward_schedule={"start": 1, "every": 2})
    assert type(reward.reward_scale) is float and reward.reward_scale == 3
    assert reward.reward_schedule == fklit.Schedule(start=1, every=2)
    for wrong in (True, np.bool_(False), torch.ones(2), "3"):
        with pytest.raises(ValueError, match="reward_scale expected a finite number"):
            RewardSettings(reward=lambda x: x, reward_scale=wrong)
    for wrong in (0.5, None, True, "0"):
        with pytest.raises(TypeError, match="seed expected an integer"):
            ParticleSettings(seed=wrong)
    with pytest.raises(TypeError, match=r"reward_schedule expected a Schedule, got a list; give one"):
        RewardSettings(reward=lambda x: x, reward_schedule=[1, 2])


def test_schedules_and_temperings_hold_numbers_of_python():
    schedule = fklit.Schedule(start=np.int64(1), stop=np.float32(0.5), every=torch.tensor(2), indices=np.arange(3))
    assert schedule == fklit.Schedule(start=1, stop=0.5, every=2, indices=(0, 1, 2))
    assert [type(step) for step in schedule.indices] == [int] * 3
    assert fklit.Schedule(indices=torch.tensor([2, 4])).resolve(np.int64(6)) == (2, 4)
    assert Linear(np.float32(0.5)) == Linear(0.5) and Adaptive(torch.tensor(0.5)) == Adaptive(0.5)


def test_indices_of_prompts_and_groups():
    assert check_indices([np.int64(3), torch.tensor(5)], 2) == [3, 5]
    ours = [g.initial_seed() for g in group_generators(np.int64(0), np.int64(2))]
    assert ours == [g.initial_seed() for g in group_generators(0, 2)]
    for wrong in ([0.5, 1], [True, 2], [-1, 2], [1, 1], [1]):
        with pytest.raises(ValueError, match="prompt_indices expected 2 different numbers"):
            check_indices(wrong, 2)


def test_metadata_is_one_mapping_a_prompt():
    assert check_metadata(None, ["a", "b"]) == [{"prompt": "a"}, {"prompt": "b"}]
    assert check_metadata({"n": 1}, ["a"]) == [{"n": 1}]
    for wrong in ([{}], ["a", "b"], [{}, 3], [{}, {}, {}]):
        with pytest.raises(ValueError, match=r"metadata expected 2 mapping\(s\)"):
            check_metadata(wrong, ["a", "b"])
