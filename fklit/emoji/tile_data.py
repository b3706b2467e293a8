"""The emoji tiles as a LightningDataModule: train on one art style, test on the other.

A stand-in for natural images where none can be downloaded, and a test of generalization from one artist to another;
it is no ImageNet. The art comes from the archives that `fklit.emoji.art` fetches; see there for the licenses.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from fklit.data.image_batches import FlipAndCrop, ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule
from fklit.emoji.art import STYLES, Style
from fklit.emoji.tiles import CATEGORIES, SIZE, load_tiles, prepare_tiles


class EmojiTilesDataModule(ImageDataModule):
    """Emoji of ten categories, 32x32 RGB on white: training in one art style, test in the other.

    1,911 emoji in each style, the same ones: `index` names the same emoji in both. The largest category (People &
    Body) has 386 of them, the smallest (Component) 5; with the skin-tone variants, all of People & Body, there are
    3,786 and 2,261 of them in that category: then a majority vote is right for 60 percent.

    Args:
        data_dir: Where `python -m fklit.data fetch emoji` put the archives.
        batch_size: Images in a batch of one process.
        train_style: The art style to train on; the other one is tested on.
        skin_tones: Add the skin-tone variants.
        augment: Mirror and shift the training images, as for CIFAR and ImageNet32.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images (of the training style) set apart to validate on; with 0 the test images are validated
            on.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number or the style is out of its range, or an archive is not the pinned one (`prepare_data`).
        FileNotFoundError: The archives have not been fetched (`prepare_data`).
    """

    num_classes = len(CATEGORIES)
    image_shape = (3, SIZE, SIZE)
    class_names = CATEGORIES

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        train_style: Style = "google",
        skin_tones: bool = False,
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
        self.data_dir = Path(data_dir).expanduser()
        self.train_style: Style = train_style
        self.skin_tones = skin_tones
        self.augment = augment

    def prepare_data(self) -> None:
        """Makes the tiles of both styles from the archives, once."""
        for style in STYLES:
            prepare_tiles(self.data_dir, style)

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a style, in memory."""
        other = next(style for style in STYLES if style != self.train_style)
        tiles = load_tiles(self.data_dir, self.train_style if split == "train" else other)
        rows = np.arange(len(tiles.categories)) if self.skin_tones else np.flatnonzero(~tiles.skin_tone)
        images = ImagesInMemory(tiles.pixels[rows], tiles.categories[rows])
        if split == "train":
            scaled = images.pixels.astype(np.float64) / 255.0
            mean, std = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
            # 1.5 times the standard deviation, as the authors normalize CIFAR and ImageNet32.
            self._normalization = Normalization(tuple(map(float, mean)), tuple(float(1.5 * s) for s in std))
        return images

    def normalization(self) -> Normalization:
        """Mean and 1.5 times the standard deviation of the training style."""
        return self._normalization

    def augmentation(self) -> FlipAndCrop | None:
        """Mirrored half of the time, white around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2, fill=255) if self.augment else None
