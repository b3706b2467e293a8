"""The reward that ships with fklit, on real scenes."""

import torch
from real_scenes import real_scenes

from fklit import assets
from fklit.emoji.training.degrade import gaussian_blur
from fklit.rewards import CLIPScore
from fklit.rewards.testing import RewardTests


class TestContract(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return CLIPScore("fklit:emoji_clip", max_batch=max_batch)

    def make_samples(self, count):
        return real_scenes()[0][:count]


def test_real_scenes_score_higher_with_their_own_prompt():
    images, right, wrong = real_scenes()
    reward = CLIPScore("fklit:emoji_clip")
    own = reward(images, [line["prompt"] for line in right])
    other = reward(images, [line["prompt"] for line in wrong])
    assert (own > other).float().mean() >= 0.9
    blurred = gaussian_blur(images, torch.full((len(images),), 3.0)).clamp(0, 1)
    own, other = (reward(blurred, [line["prompt"] for line in lines]) for lines in (right, wrong))
    assert (own > other).float().mean() >= 0.8  # informative at high noise, too


def test_the_typical_range_is_that_of_real_scenes():
    images, right, wrong = real_scenes()
    reward = CLIPScore("fklit:emoji_clip").load()
    low, high = reward.typical_range
    scores = torch.cat([reward(images, [line["prompt"] for line in lines]) for lines in (right, wrong)])
    assert ((scores >= low) & (scores <= high)).float().mean() >= 0.9


def test_the_folder_is_small_and_has_a_card():
    folder = assets.path("emoji_clip")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4 * 2**20
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card and "Apache" in card and "fklit fit" in card
