"""Handwritten digits of 8x8 pixels, which ship with fklit: an experiment in seconds and without a download."""

import gzip
import zlib
from importlib.resources import files as package_files
from pathlib import Path
from typing import Literal

import numpy as np

from fklit.data.counter_random import shuffled
from fklit.data.image_batches import ImagesInMemory, Normalization
from fklit.data.image_module import SUBSET_SEED, ImageDataModule

NUM_TRAIN = 1437  # of 1,797, four fifths
_FILES = ("digits.csv.gz", "optdigits.tes")


def read_digits(path: str | Path) -> ImagesInMemory:
    """Reads a text of digits: a digit a line, 64 pixels from 0 to 16, then the class, between commas.

    Args:
        path: Scikit-learn's `digits.csv.gz`, or `optdigits.tes` of the UCI repository, which is the same.

    Raises:
        ValueError: The file is truncated, or a line is something else.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("ascii")
        table = np.array([[float(cell) for cell in line.split(",")] for line in text.split()])
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"expected a table of digits, got {path}, which is truncated or another ({error}); fetch it again."
        ) from None
    if table.ndim != 2 or table.shape[1] != 65 or (table != np.floor(table)).any():
        raise ValueError(f"expected 65 integers a line, got another table {table.shape} in {path}; fetch it again.")
    pixels, labels = table[:, :64], table[:, 64]
    if pixels.min() < 0 or pixels.max() > 16 or labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"expected pixels from 0 to 16 and labels from 0 to 9, got others in {path}; fetch it again.")
    return ImagesInMemory(pixels.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64))


class DigitsDataModule(ImageDataModule):
    """1,797 handwritten digits, 8x8 pixels in [0, 1], of 13 writers: 1,437 to train on and 360 to test on.

    The file has no official split, so a fixed random one is used. `index` counts within each part.

    Args:
        data_dir: Folder with `digits.csv.gz` (scikit-learn) or `optdigits.tes` (UCI); None for the shipped copy.
        batch_size: Images in a batch of one process.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on.
        seed: Of the order (not of the split).
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or the file is corrupt (in `setup`).
        FileNotFoundError: The file is missing (in `setup`).
    """

    num_classes = 10
    image_shape = (1, 8, 8)
    class_names = tuple("0123456789")

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 50,
        *,
        num_train: int | None = None,
        num_test: int | None = None,
        holdout: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size, num_train=num_train, num_test=num_test, holdout=holdout, seed=seed, num_workers=num_workers
        )
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a part, in memory."""
        root = Path(str(package_files("fklit.data") / "shipped")) if self.data_dir is None else self.data_dir
        path = next((root / name for name in _FILES if (root / name).is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"expected {' or '.join(_FILES)} in {root}, got neither; give the folder of one of them, or "
                "no data_dir at all for the copy that ships with fklit."
            )
        digits = read_digits(path)
        total = len(digits.labels)
        # Another number of digits is split in the same proportion.
        cut = NUM_TRAIN if total == 1797 else total * 4 // 5
        order = shuffled(total, SUBSET_SEED, 1)
        rows = np.sort(order[:cut] if split == "train" else order[cut:])
        return ImagesInMemory(digits.pixels[rows], digits.labels[rows])

    def normalization(self) -> Normalization:
        """Pixels from 0 (paper) to 1 (ink)."""
        return Normalization((0.0,), (1.0,), full_scale=16.0)
