"""Rewards of pictures over the frames of videos."""

import pytest
import torch

from fklit.rewards import Clipped, CLIPScore, Frames, Function, Reward, RewardError, WeightedSum
from fklit.rewards.testing import RewardTests


def brightness(images, prompts):
    return images.flatten(1).mean(1) + torch.tensor([float(len(prompt)) for prompt in prompts])


class TestFrames(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return Frames(Function(brightness, max_batch=max_batch))

    def make_samples(self, count):
        return torch.stack([super(TestFrames, self).make_samples(3).roll(i, 1) / (1 + i) for i in range(count)])


VIDEOS = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("mean", lambda s: s.mean(1)), ("min", lambda s: s.min(1).values), ("max", lambda s: s.max(1).values),
        ("median", lambda s: s.sort(1).values[:, 1]), ("first", lambda s: s[:, 0]), ("last", lambda s: s[:, 2]),
    ],
)  # fmt: skip
def test_scores_of_every_second_frame_are_reduced(reduce, expected):
    scores = VIDEOS[:, ::2].mean((2, 3, 4)) + torch.tensor([[1.0], [2.0]])
    found = Frames(brightness, every=2, reduce=reduce)(VIDEOS, ["a", "bb"])
    torch.testing.assert_close(found, expected(scores))


def test_pictures_are_videos_of_one_frame():
    found = Frames(brightness, reduce="min")(VIDEOS[:, 0], ["a", "bb"])
    torch.testing.assert_close(found, brightness(VIDEOS[:, 0], ["a", "bb"]))


def test_metadata_is_that_of_the_sample():
    def named(images, prompts, metadata):
        return [float(item["n"]) for item in metadata]

    assert Frames(named)(VIDEOS, ["a", "b"], [{"n": 3}, {"n": 5}]).tolist() == [3.0, 5.0]


def test_range_and_scale_are_those_of_the_reward():
    reward = Frames(Function(brightness, typical_range=(0.0, 2.0), suggested_scale=7.0))
    assert reward.typical_range == (0.0, 2.0) and reward.suggested_scale == 7.0


def test_a_reward_of_pictures_names_the_cure_when_it_gets_videos():
    with pytest.raises(ValueError, match=r"got torch.float32 \(2, 5, 3, 4, 4\); score frames .* rewards.Frames"):
        CLIPScore("fklit:emoji_clip")(VIDEOS, ["a", "b"])


class OfAudio(Reward):
    accepts = "audio"
    needs_prompts = False

    def score(self, samples, prompts):
        return samples.square().mean((1, 2))


def test_a_reward_says_which_of_its_parts_takes_no_samples_of_a_modality():
    clip, loud = CLIPScore("fklit:emoji_clip"), OfAudio()
    both = WeightedSum([Function(brightness), Clipped(clip, low=0.0)], [1.0, 1.0])
    assert both.refused("image") is None and both.refused("video") is clip and both.refused("audio") is clip
    assert Frames(both).refused("video") is None and Frames(both).refused("audio") is not None
    assert loud.refused("audio") is None and loud.refused("image") is loud
    torch.testing.assert_close(loud(torch.full((2, 1, 8), -3.0)), torch.tensor([9.0, 9.0]))
    with pytest.raises(ValueError, match=r"OfAudio expected float waveforms \(N, C, T\), got torch.float32 \(2, 8\)"):
        loud(torch.zeros(2, 8))


def test_functions_get_videos_in_the_form_they_ask_for():
    seen = []

    def reward(videos):
        seen.append(videos)
        return [0.0] * len(videos)

    Function(reward, images="pil")(VIDEOS, ["a", "b"])
    Function(reward, images="uint8")(VIDEOS, ["a", "b"])
    assert [len(video) for video in seen[0]] == [5, 5] and seen[0][0][0].size == (4, 4)
    assert seen[1].dtype == torch.uint8 and seen[1].shape == VIDEOS.shape
    with pytest.raises(RewardError, match="images='pil' expected float images"):
        Function(reward, images="pil")(torch.zeros(2, 1, 8), ["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every=0 is too small"),
        ({"reduce": "sum"}, "reduce='sum' is not known"),
        ({"reward": OfAudio()}, "Frames expected a reward of pictures, got OfAudio, which takes audio"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Frames(**{"reward": brightness, **arguments})
