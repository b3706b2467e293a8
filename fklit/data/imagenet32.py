"""ImageNet 32x32 (Chrabaszcz, Loshchilov, Hutter 2017, arXiv:1707.08819) from the official batch files."""

from importlib.resources import files as package_files
from typing import Literal

import numpy as np

from fklit.data.image_batches import FlipAndCrop, Normalization, Rows
from fklit.data.image_module import ImageDataModule
from fklit.data.imagenet32_cache import (
    NUM_CLASSES,
    TEST_FILES,
    TRAIN_FILES,
    MappedImages,
    cache_folders,
    convert,
    missing_batches,
)

LabelOrder = Literal["authors", "wordnet"]
MEAN = (0.485, 0.456, 0.406)
STD = (1.5 * 0.229, 1.5 * 0.224, 1.5 * 0.225)


def imagenet32_classes() -> list[tuple[str, str]]:
    """WordNet id and name of every class, in the authors' order (place 0 is label 1 of the files)."""
    text = (package_files("fklit.data") / "shipped" / "imagenet32_classes.txt").read_text("utf-8")
    return [(synset, name) for synset, name in (line.split() for line in text.splitlines())]


def label_map(order: LabelOrder) -> Rows:
    """What each of the authors' classes (0 to 999) is called in another order, int64 `(1000,)`.

    `"authors"` changes nothing: class 0 is n02119789 (kit fox), 1 is n02100735 (English setter). `"wordnet"` sorts
    by WordNet id, which is the order of torchvision, timm and most pretrained classifiers: 0 is n01440764 (tench).
    """
    if order == "authors":
        return np.arange(NUM_CLASSES)
    synsets = [synset for synset, _ in imagenet32_classes()]
    return np.argsort(np.argsort(np.array(synsets))).astype(np.int64)


class ImageNet32DataModule(ImageDataModule):
    """ImageNet at 32x32: 1,281,167 training and 50,000 validation images of 1,000 classes.

    The official files are converted once (`prepare_data`, or `python -m fklit.data convert imagenet32 DIR`), which
    takes another 3.9 GB of disk; the official ones may be deleted then. Checksums are not looked at here but by
    `python -m fklit.data verify imagenet32 DIR`. The official validation images are the test images of this module.

    Args:
        data_dir: Folder of the official files `train_data_batch_1` to `_10` and `val_data`, pickles or `.npz`,
            or of the folders the archives unpack to.
        batch_size: Images in a batch of one process.
        cache_dir: Where the converted files go; None for `data_dir/mmap`.
        label_order: `"authors"`, labels 1..1000 of the files as 0..999, or `"wordnet"`, the order of torchvision
            and most pretrained classifiers, see `label_map`.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in `prepare_data` or `setup`).
        FileNotFoundError: A file is missing; the message names it (in `prepare_data`).
    """

    num_classes = NUM_CLASSES
    image_shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 256,
        *,
        cache_dir: str | None = None,
        label_order: LabelOrder = "authors",
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
        if label_order not in ("authors", "wordnet"):
            raise ValueError(f"expected label_order 'authors' or 'wordnet', got {label_order!r}; choose one.")
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self.label_order: LabelOrder = label_order
        self.augment = augment

    def prepare_data(self) -> None:
        """Converts what is not converted yet, on one process of every machine."""
        convert(self.data_dir, self.cache_dir)

    def load(self, split: Literal["train", "test"]) -> MappedImages:
        """The converted images of a split."""
        root, cache = cache_folders(self.data_dir, self.cache_dir)
        names = TRAIN_FILES if split == "train" else TEST_FILES
        missing = missing_batches(root, cache, names)
        if missing:
            raise FileNotFoundError(
                f"expected converted files, got {cache} without {', '.join(missing)}; "
                f"run `python -m fklit.data convert imagenet32 {root}`."
            )
        return MappedImages(cache, names, label_map(self.label_order))

    def normalization(self) -> Normalization:
        """Mean and 1.5 times the standard deviation of ImageNet, as published with the homeostatic loss."""
        return Normalization(MEAN, STD)

    def augmentation(self) -> FlipAndCrop | None:
        """As published: mirrored half of the time, zeros around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2) if self.augment else None
