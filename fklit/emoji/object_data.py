"""The objects of the emoji scenes as labeled tiles: train on one art style, test on the other."""

from pathlib import Path
from typing import Literal

import numpy as np

from fklit.data.image_batches import FlipAndCrop, ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule
from fklit.emoji.art import STYLES, EmojiArt, Style, load_art
from fklit.emoji.objects import OBJECTS
from fklit.emoji.prompts import ScenePrompt, Wanted
from fklit.emoji.scenes import IMAGE_SIZE, MAX_SIZE, MIN_SIZE, PlacedObject, Scene, compose, scene_rng

SIZE = IMAGE_SIZE // 2


def paint_tiles(art: EmojiArt, style: Style, number: int, *, seed: int) -> ImagesInMemory:
    """Scenes of a single object, `number` of each, scaled to 32x32 by averaging.

    Args:
        art: The sprites.
        style: Of all of them.
        number: Places and sizes of each object: near the middle, as scenes of one object have it.
        seed: Of the places and sizes; tile i is the same whatever the number.

    Returns:
        Pixels on white, in the order of `OBJECTS`, number after number.
    """
    tiles = []
    for index in range(number):
        for kind, thing in enumerate(OBJECTS):
            rng = scene_rng(seed, index * len(OBJECTS) + kind)
            size = int(rng.integers(MIN_SIZE, MAX_SIZE + 1))
            left, top = ((IMAGE_SIZE - size) // 2 + int(rng.integers(-6, 7)) for _ in range(2))
            placed = PlacedObject(thing.name, thing.noun, thing.color, style, (left, top, left + size, top + size))
            picture = compose(Scene(ScenePrompt("single_object", (Wanted(thing.noun),)), (placed,)), art)
            quarters = picture.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
            tiles.append(np.rint(quarters).astype(np.uint8).transpose(2, 0, 1))
    labels = np.tile(np.arange(len(OBJECTS), dtype=np.int64), number)
    return ImagesInMemory(np.ascontiguousarray(np.stack(tiles)), labels)


class EmojiObjectsDataModule(ImageDataModule):
    """The objects of the emoji scenes, 32x32 RGB on white, a class each: training in one art style, test in the other.

    A tile is a scene of one object at half its size, so that a classifier of tiles reads generated scenes, too.

    Args:
        data_dir: Where `python -m fklit.data fetch emoji` put the art.
        batch_size: Images in a batch of one process.
        train_style: The art style to train on; the other one is tested on.
        placements: Tiles of each object, which differ in place and size; a fourth as many, at least one, are tested on.
        augment: Mirror and shift the training images.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images (of the training style) set apart to validate on; with 0 the test images are validated
            on.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number or the style is out of its range.
        FileNotFoundError: The art has not been fetched (`setup`).
    """

    num_classes = len(OBJECTS)
    image_shape = (3, SIZE, SIZE)
    class_names = tuple(thing.name for thing in OBJECTS)

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 40,
        *,
        train_style: Style = "google",
        placements: int = 40,
        augment: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        holdout: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size, num_train=num_train, num_test=num_test, holdout=holdout, seed=seed, num_workers=num_workers
        )
        if train_style not in STYLES:
            raise ValueError(f"expected train_style {' or '.join(map(repr, STYLES))}, got {train_style!r}; choose one.")
        if placements < 1:
            raise ValueError(f"expected placements of at least 1, got {placements}; give an integer.")
        self.data_dir = Path(data_dir).expanduser()
        self.train_style: Style = train_style
        self.placements = placements
        self.augment = augment

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The tiles of a style, in memory."""
        art = load_art(self.data_dir)
        if split == "test":
            other = next(style for style in STYLES if style != self.train_style)
            return paint_tiles(art, other, max(1, self.placements // 4), seed=1)
        tiles = paint_tiles(art, self.train_style, self.placements, seed=0)
        scaled = tiles.pixels.astype(np.float64) / 255.0
        mean, std = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
        self._normalization = Normalization(tuple(map(float, mean)), tuple(map(float, std)))
        return tiles

    def normalization(self) -> Normalization:
        """Mean and standard deviation of the training tiles."""
        return self._normalization

    def augmentation(self) -> FlipAndCrop | None:
        """Mirrored half of the time, white around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2, fill=255) if self.augment else None
