"""Runs of the shipped pipeline: the pictures are its own, and the kept predictions those of the steps."""

import pytest
import torch

from fklit.emoji.training.trajectories import Trajectories

SHIPPED = "fklit:emoji_scenes"
PROMPTS = ["a red heart left of a cat", "three frogs"]


def run(trajectories):
    torch.manual_seed(0)
    return trajectories(PROMPTS, torch.device("cpu"))


def test_the_pictures_are_those_of_the_pipeline_itself():
    trajectories = Trajectories(SHIPPED, steps=5, kept=2)
    final, means = run(trajectories)
    assert final.shape == (2, 3, 64, 64) and means.shape == (2, 2, 3, 64, 64)
    pipeline = trajectories.load(torch.device("cpu"))
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    torch.randperm(len(trajectories.window))  # which steps are kept is drawn first
    own = pipeline(PROMPTS, num_inference_steps=5, guidance_scale=1.0, eta=1.0, output_type="pt").images
    assert torch.allclose(final, own, atol=1e-5)


def test_the_prediction_of_the_last_step_is_the_picture_and_earlier_ones_are_further_off():
    final, means = run(Trajectories(SHIPPED, steps=5, kept=5, first=0.0, last=1.0))
    assert torch.allclose(means[:, -1], final, atol=1e-5)
    off = (means - final[:, None]).square().mean((0, 2, 3, 4))
    assert off[:2].min() > off[2] > off[3] > off[4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"prompts": 0},
            "expected prompts, samples and kept of at least 1 and steps of at least 2, got 0, 4, 4 and 30",
        ),
        ({"steps": 1}, "steps of at least 2, got 64, 4, 4 and 1"),
        ({"first": 0.9}, r"expected 0 <= first < last <= 1 .* got 0.9 and 0.9; widen"),
        ({"last": 1.1}, "got 0.2 and 1.1; widen"),
        ({"kept": 30}, "with at least kept=30 of 30 steps between them"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Trajectories(SHIPPED, **settings)
