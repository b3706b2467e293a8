"""Tiles of the scenes' objects: labels, styles, places, and numbers that are refused."""

import numpy as np
import pytest

from fklit.emoji import EmojiObjectsDataModule, object_data
from fklit.emoji.art import STYLES, EmojiArt
from fklit.emoji.object_data import paint_tiles
from fklit.emoji.objects import OBJECTS


def plain_art():
    """Each object is a square of its own shade: red in one style, blue in the other."""
    sprites = {}
    for number, thing in enumerate(OBJECTS):
        for channel, style in zip((0, 2), STYLES, strict=True):
            sprite = np.zeros((64, 64, 4), np.uint8)
            sprite[..., channel], sprite[..., 3] = 4 * number, 255
            sprites[thing.name, style] = sprite
    return EmojiArt(sprites)


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(object_data, "load_art", lambda folder: plain_art())

    def make(**options):
        module = EmojiObjectsDataModule("nowhere", 20, **options)
        module.setup("fit")
        return module

    return make


def test_tiles_show_their_object_near_the_middle():
    tiles = paint_tiles(plain_art(), "google", 3, seed=0)
    assert tiles.pixels.shape == (3 * len(OBJECTS), 3, 32, 32) and tiles.pixels.dtype == np.uint8
    assert tiles.labels.tolist() == [*range(len(OBJECTS))] * 3
    for pixels, label in zip(tiles.pixels, tiles.labels, strict=True):
        assert (pixels[:, 16, 16] == [4 * label, 0, 0]).all()
        covered = (255 - pixels[1].astype(float)).sum() / 255  # in pixels of a half-size tile
        assert 13**2 - 1 <= covered <= 15**2 + 1
        assert (pixels[:, 0] == 255).all() and (pixels[:, :, 0] == 255).all()
    places = {pixels[1].tobytes() for pixels in tiles.pixels[:: len(OBJECTS)]}
    assert len(places) == 3
    more = paint_tiles(plain_art(), "google", 5, seed=0)
    assert np.array_equal(more.pixels[: len(tiles.pixels)], tiles.pixels)


def test_train_on_one_style_and_test_on_the_other(data):
    module = data(placements=8, train_style="twitter", augment=False)
    assert len(module.train_rows) == 8 * len(OBJECTS) and len(module.test_rows) == 2 * len(OBJECTS)
    assert module.num_classes == len(module.class_names) == len(OBJECTS) and module.class_names[1] == "green heart"
    assert (module.train_images.pixels[:, 0, 16, 16] == 0).all() and (
        module.test_images.pixels[:, 2, 16, 16] == 0
    ).all()
    batch = next(iter(module.train_dataloader()))
    assert batch["x"].shape == (20, 3, 32, 32) and batch["y"].shape == (20,)
    whole = module.normalization()(module.train_images.pixels)
    assert whole.mean((0, 2, 3)).abs().max() < 1e-3 and (whole.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert module.augmentation() is None and data(placements=1).augmentation().fill == 255
    assert len(data(placements=1).test_rows) == len(OBJECTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"train_style": "apple"}, "expected train_style 'google' or 'twitter'"), ({"placements": 0}, "placements of at")],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EmojiObjectsDataModule(**options)
