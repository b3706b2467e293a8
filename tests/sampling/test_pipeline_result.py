"""What a call returns: pictures by weight or by reward, and a record of each prompt."""

import math
from dataclasses import replace

import pytest
import torch

from fklit.feynman_kac import Budget, group_generators
from fklit.sampling.result import PipelineResult


def _result(channels=3, **changes):
    levels = torch.tensor([[0.0, 0.2, 1.0], [0.4, 0.6, 0.8]])
    given = {
        "samples": levels[:, :, None, None, None].expand(2, 3, channels, 2, 4).clone(),
        "log_weights": torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.0, 0.75]]).double().log(),
        "log_z": torch.tensor([1.0, 2.0]).double(),
        "steps": (1, 3),
        "ess": torch.tensor([[3.0, 2.0], [1.5, 2.5], [2.0, 1.6]]).double(),
        "ancestors": torch.tensor([[[0, 0, 2], [0, 1, 2]], [[0, 1, 2], [2, 1, 2]]]),
        "resampled": torch.tensor([[True, False], [False, True]]),
        "degenerate": torch.tensor([False, False]),
        "dropped": torch.tensor([0, 1]),
        "budget": Budget(denoiser_calls=24, seconds=4.0),
        "prompts": ["a cat", "a dog"],
        "prompt_indices": [4, 9],
        "num_steps": 5,
        "scored_steps": (1, 3),
        "settings": {"seed": 3, "sampler": "DDIM with eta=1"},
    }
    return PipelineResult(**{**given, **changes})


def test_pictures_have_the_rounded_values_of_the_samples():
    result = _result()
    assert [len(row) for row in result.images] == [3, 3]
    assert result.images[0][1].size == (4, 2) and result.images[0][1].mode == "RGB"
    assert [[image.getpixel((3, 1)) for image in row] for row in result.images] == [
        [(value, value, value) for value in row] for row in ([0, 51, 255], [102, 153, 204])
    ]
    gray = _result(channels=1, samples=torch.full((2, 3, 1, 2, 4), 0.999))
    assert gray.images[1][2].mode == "L" and gray.images[1][2].getpixel((0, 0)) == 255


def test_best_is_by_weight_by_reward_or_by_a_score():
    result = _result()
    assert [image.getpixel((0, 0))[0] for image in result.best()] == [0, 204]
    scores = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 1.0]])
    assert [image.getpixel((0, 0))[0] for image in result.best(scores)] == [51, 102]
    assert [image.getpixel((0, 0))[0] for image in replace(result, rewards=scores.double()).best()] == [51, 102]


def test_draws_follow_the_weights_the_seed_and_the_index_of_the_prompt():
    result = _result()
    generators = group_generators(7, [4, 9], stream="selection")
    expected = torch.stack(
        [
            torch.multinomial(row, 6, replacement=True, generator=generator)
            for row, generator in zip(result.log_weights.exp(), generators, strict=True)
        ]
    )
    assert torch.equal(result.sample_index(6, seed=7), expected)
    values = [[image.getpixel((0, 0))[0] for image in row] for row in result.sample(6, seed=7)]
    assert values == [[[0, 51, 255][k] for k in expected[0]], [[102, 153, 204][k] for k in expected[1]]]
    assert [len(row) for row in result.sample()] == [1, 1]
    assert result.sample_index(50).tolist() == result.sample_index(50, seed=0).tolist()


def test_a_record_is_that_of_its_prompt():
    path = torch.tensor([[[1.0, 2.0, -math.inf], [4.0, 5.0, 6.0]], [[7.0, 8.0, 9.0], [1.0, 2.0, 3.0]]]).double()
    result = _result(reward_path=path, flagged=[[False] * 3, [False, True, False]])
    record = result.record(1)
    own = {name: record[name] for name in ("prompt", "prompt_index", "seed", "sampler", "num_steps", "scored_steps")}
    assert own == {
        **{"prompt": "a dog", "prompt_index": 9, "seed": 3, "sampler": "DDIM with eta=1"},
        **{"num_steps": 5, "scored_steps": [1, 3]},
    }
    assert record["ancestors"] == [[0, 1, 2], [2, 1, 2]] and record["flagged"] == [False, True, False]
    assert record["reward_path"] == [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]]
    assert record["budget"]["denoiser_calls"] == 12 and record["budget"]["seconds"] == 2.0
    assert result.record(0)["reward_path"][0] == [1.0, 2.0, None]
    plain = _result(ancestors=(None, None)).record(0)
    assert plain["ancestors"] is plain["reward_path"] is plain["flagged"] is None
    assert result.sampler == "DDIM with eta=1" and list(result.group_indices) == [4, 9]


@pytest.mark.parametrize("name", ["reward_path", "previews", "flagged", "rewards"])
def test_what_not_every_method_has_is_none(name):
    assert getattr(_result(), name) is None


def test_a_flagged_picture_is_not_the_best_unless_all_are():
    scores = torch.tensor([[1.0, 2.0, 9.0], [9.0, 9.0, 1.0]])
    flagged = _result(flagged=[[True, False, False], [True, True, True]])
    assert flagged.best_index().tolist() == [1, 2] and _result().best_index().tolist() == [0, 2]
    assert flagged.best_index(scores).tolist() == [1, 0]
    assert torch.equal(flagged.log_weights, _result().log_weights)
