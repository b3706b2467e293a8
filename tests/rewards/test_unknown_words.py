"""Words that a model of few words does not know are told, once a prompt, and known ones are not."""

import warnings

import pytest
import torch

from fklit.rewards import CLIPScore, ImageReward, UnknownWordsWarning

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reward", [ImageReward("fklit:emoji_reward"), CLIPScore("fklit:emoji_clip")])
def test_unknown_words_are_named_and_known_ones_are_not(reward):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownWordsWarning)
        reward(PICTURES, ["a red heart left of a cat", "three frogs"])
    name = type(reward).__name__
    with pytest.warns(
        UnknownWordsWarning, match=rf"{name} expected words .*, got 'zebra', 'beside' in 'a zebra beside a"
    ):
        reward(PICTURES, ["a zebra beside a cat", "three frogs"])


def test_a_run_of_many_scores_tells_once():
    reward = ImageReward("fklit:emoji_reward")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnknownWordsWarning)
        for _ in range(3):
            reward(PICTURES, ["a zebra", "a zebra"])
    assert sum(issubclass(found.category, UnknownWordsWarning) for found in caught) == 1
