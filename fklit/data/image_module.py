"""What the data modules of labeled images share: splits, subsets, loaders, and their checks."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset

from fklit.data.batch_order import BatchLoader, BatchOrder
from fklit.data.counter_random import shuffled
from fklit.data.image_batches import FlipAndCrop, ImageBatch, ImageDataset, ImageSource, Normalization, Rows

SUBSET_SEED = 1234  # of the subsets: fixed, so that runs with different seeds train on the same images


class ImageDataModule(LightningDataModule, ABC):
    """Base of the data modules of labeled images; a subclass says where the images are and how they are normalized.

    Every batch is an `fklit.data.image_batches.ImageBatch`. The order of training depends on the seed and the
    epoch only, the augmentation of an image on the seed, the epoch and its index only: neither on the number of
    workers or processes. A checkpoint in the middle of an epoch resumes with the next batch. `predict` gives the test
    images, each once and on one process, in the order of the files.

    Args:
        batch_size: Images in a batch of one process.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images that are set apart to validate on. With 0, validation uses the test images, as the
            published figures of these data sets do: then do not choose anything by it that you report.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images; 0 reads in the training process.

    Raises:
        ValueError: A number is out of its range, here or (subsets, when the files are known) in `setup`.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    class_names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        batch_size: int,
        *,
        num_train: int | None,
        num_test: int | None,
        holdout: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_train", num_train, 1),
            ("num_test", num_test, 1),
            ("holdout", holdout, 0),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"expected {name} of at least {least}, got {value}; give an integer.")
        self.batch_size = batch_size
        self.num_train = num_train
        self.num_test = num_test
        self.holdout = holdout
        self.seed = seed
        self.num_workers = num_workers
        self._ready = False

    @abstractmethod
    def load(self, split: Literal["train", "test"]) -> ImageSource:
        """The stored images of a split."""

    @abstractmethod
    def normalization(self) -> Normalization:
        """From bytes to numbers, after the images were loaded."""

    def augmentation(self) -> FlipAndCrop | None:
        """What is done to training images, or None."""
        return None

    def setup(self, stage: str) -> None:
        """Opens the files, once."""
        if self._ready:
            return
        self.train_images, self.test_images = self.load("train"), self.load("test")
        self.train_rows, held_out = self._split(self.train_images, self.num_train, "num_train", self.holdout)
        self.test_rows, _ = self._split(self.test_images, self.num_test, "num_test", 0)
        self.val_images = self.train_images if self.holdout else self.test_images
        self.val_rows = held_out if self.holdout else self.test_rows
        self._ready = True

    def _split(self, source: ImageSource, number: int | None, name: str, holdout: int) -> tuple[Rows, Rows]:
        """Rows to use and rows held out, each in the order of the files."""
        total = len(source.labels)
        wanted = total - holdout if number is None else number
        if wanted < 1 or wanted + holdout > total:
            more = f" with holdout={holdout}" if holdout else ""
            raise ValueError(
                f"expected at most the {total} images that {type(self).__name__} has here, got {name}={number}{more}; "
                "use fewer."
            )
        order = shuffled(total, SUBSET_SEED)
        return np.sort(order[:wanted]), np.sort(order[wanted : wanted + holdout])

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Shuffled batches of `batch_size`, augmented; the incomplete last one is omitted.

        Raises:
            ValueError: There are fewer images than one batch for every process, or `overfit_batches` is set.
        """
        augment = self.augmentation()
        return self._loader(self.train_images, self.train_rows, shuffle=True, augmentation=augment)

    def val_dataloader(self) -> DataLoader[ImageBatch]:
        """The held-out images (the test images with `holdout=0`), each once, in the order of the files."""
        return self._loader(self.val_images, self.val_rows, shuffle=False, augmentation=None)

    def test_dataloader(self) -> DataLoader[ImageBatch]:
        """The test images, each once, in the order of the files."""
        return self._loader(self.test_images, self.test_rows, shuffle=False, augmentation=None)

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """The test images, each once, in the order of the files; `index` tells which each is.

        Process r of W gets images r, r + W, ... of them, from Lightning.
        """
        # Not a BatchLoader: for `predict` Lightning rebuilds the loader around a batch sampler of its own.
        images = ImageDataset(self.test_images, self.normalization(), seed=self.seed)
        return DataLoader(
            Subset(images, self.test_rows.tolist()),
            batch_size=self.batch_size,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # DataLoader draws a seed for its workers: not from the global generator
        )

    def _loader(
        self, source: ImageSource, rows: Rows, *, shuffle: bool, augmentation: FlipAndCrop | None
    ) -> DataLoader[ImageBatch]:
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit > 0:
            raise ValueError(
                f"expected overfit_batches=0, since {type(self).__name__} orders the images itself, got {overfit}; "
                "set the data module's num_train instead."
            )
        dataset = ImageDataset(source, self.normalization(), augmentation=augmentation, seed=self.seed)
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        order = BatchOrder(rows, self.batch_size, shuffle=shuffle, seed=self.seed, rank=rank, num_processes=world)
        return BatchLoader(dataset, order, num_workers=self.num_workers, pin_memory=torch.cuda.is_available())


def _as_it_is(batch: Any) -> Any:
    return batch
