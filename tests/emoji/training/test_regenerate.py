"""Pictures drawn again by the shipped pipeline: what is left alone, and how much the others change."""

import pytest
import torch
from real_scenes import real_scenes

from fklit.emoji.training.regenerate import Regenerate
from fklit.emoji.training.relabel import OTHER, SAME

SHIPPED = "fklit:emoji_scenes"


@pytest.fixture(scope="module")
def scenes():
    images, right, _ = real_scenes()
    return images[:4], [line["prompt"] for line in right[:4]]


def drawn(scenes, prompts, level, share=1.0):
    torch.manual_seed(0)
    regenerate = Regenerate(SHIPPED, share, lowest=level, highest=level, steps=8)
    return regenerate, *regenerate(scenes[0], prompts)


def test_untouched_pictures_are_unchanged_and_changes_are_those_of_the_windows(scenes):
    images, prompts = scenes
    before = images.clone()
    regenerate, result, chosen, change = drawn(scenes, prompts, 0.4, share=0.5)
    assert torch.equal(images, before)
    assert len(chosen) == len(set(chosen.tolist())) == 2 and change.shape == (2, 7, 7)
    for index in range(4):
        assert torch.equal(result[index], images[index]) == (index not in chosen.tolist())
    assert result.min() >= 0 and result.max() <= 1
    vae = regenerate.load(images.device).vae
    with torch.no_grad():
        decoded = vae.decode(vae.encode(images[chosen] * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
    off = result[chosen] - decoded.clamp(0, 1)
    for row, column in ((0, 0), (2, 5), (6, 6)):
        window = off[:, :, 8 * row : 8 * row + 16, 8 * column : 8 * column + 16]
        assert torch.allclose(change[:, row, column], window.square().flatten(1).mean(1).sqrt(), atol=1e-4)
    # neither trained nor in checkpoints, also once it is loaded
    assert not regenerate.state_dict() and not list(regenerate.parameters()) and not list(regenerate.children())


def test_little_changes_at_a_low_level_and_much_at_a_high_one_under_another_caption(scenes):
    _, prompts = scenes
    _, _, _, little = drawn(scenes, prompts, 0.01)
    assert little.amax((1, 2)).max() < SAME
    other = ["a blue book", "two pizzas", "an octopus", "a panda above a star"]
    assert not set(other) & set(prompts)
    _, _, _, much = drawn(scenes, other, 0.9)
    assert (much.amax((1, 2)) > OTHER).all()


def test_a_share_is_at_least_one_picture_and_draws_follow_the_seed(scenes):
    _, one, chosen, _ = drawn(scenes, scenes[1], 0.3, share=0.01)
    _, again, same, _ = drawn(scenes, scenes[1], 0.3, share=0.01)
    assert len(chosen) == 1 and torch.equal(chosen, same) and torch.equal(one, again)


@pytest.mark.parametrize(
    "settings",
    [
        {"share": 0.0}, {"share": 1.1}, {"lowest": 0.0}, {"lowest": 0.7, "highest": 0.6}, {"highest": 1.0},
        {"steps": 1},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"expected share in \(0, 1\], 0 < lowest <= highest < 1 and steps of at"):
        Regenerate(SHIPPED, **settings)


def test_a_missing_pipeline_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected model_index\.json in folder, got .* give a pipeline"):
        Regenerate(str(tmp_path))
