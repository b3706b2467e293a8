"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read by torchvision from the official Python files."""

import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fklit.data.checksums import Finding, compare
from fklit.data.image_batches import FlipAndCrop, ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule

Name = Literal["CIFAR10", "CIFAR100"]

# Mean and 1.5 times the standard deviation of CIFAR-10, also used for CIFAR-100 (the authors of the homeostatic loss).
MEAN = (0.4914, 0.4822, 0.4465)
STD = (1.5 * 0.2023, 1.5 * 0.1994, 1.5 * 0.2010)


def _reader(name: Name) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


def official_files(name: Name) -> dict[str, str]:
    """md5 of each file that the official archive unpacks to, as torchvision knows them."""
    reader = _reader(name)
    return dict([*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])])


def verify_cifar(name: Name, data_dir: Path) -> Iterator[Finding]:
    """Compares the unpacked files, or the archive where there are none, with the published md5.

    Args:
        name: Which of both.
        data_dir: The folder that the data module takes.
    """
    reader = _reader(name)
    folder = _unpacked(name, data_dir)
    if folder is None:
        yield from compare(data_dir, {reader.filename: reader.tgz_md5}, "md5")
    else:
        yield from compare(folder, official_files(name), "md5")


def _unpacked(name: Name, data_dir: Path) -> Path | None:
    """The folder with the unpacked files or some of them."""
    files = official_files(name)
    places = (data_dir / _reader(name).base_folder, data_dir)
    return next((place for place in places if any((place / file).is_file() for file in files)), None)


@contextmanager
def _files(name: Name, data_dir: Path) -> Iterator[Path]:
    """The folder with the unpacked files, for which an archive is unpacked and removed afterwards."""
    folder, reader = _unpacked(name, data_dir), _reader(name)
    archive = data_dir / reader.filename
    if folder is not None:
        yield folder
        return
    if not archive.is_file():
        raise FileNotFoundError(
            f"expected {reader.base_folder} or {archive.name} in {data_dir}, got neither; put the official Python "
            "archive there, or what it unpacks to (data/README.md of the project says where it comes from)."
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with tarfile.open(archive) as tar:
                for file in official_files(name):
                    tar.extract(f"{reader.base_folder}/{file}", scratch, filter="data")
        except (tarfile.TarError, EOFError, OSError, KeyError, zlib.error) as error:
            raise ValueError(
                f"expected the official archive, got {archive}, which is truncated or another one ({error}); fetch it "
                "again."
            ) from None
        yield Path(scratch) / reader.base_folder


def _read(name: Name, folder: Path, *, train: bool) -> Any:
    """Reads with torchvision, which compares md5 first: the files are pickles, and a forged one is a program."""
    here = type(name, (_reader(name),), {"base_folder": ""})  # the files are in the root itself
    try:
        return here(folder, train=train)
    except RuntimeError:
        wrong = [f for f in compare(folder, official_files(name), "md5") if f.verdict != "ok"]
        if not wrong:
            raise
        missing = ", ".join(finding.name for finding in wrong if finding.verdict == "missing")
        fix = f"unpack {_reader(name).filename} again."
        if missing:
            raise FileNotFoundError(
                f"expected the official files of {name}, got {folder} without {missing}; {fix}"
            ) from None
        found = "; ".join(f"{folder / finding.name} ({finding.detail})" for finding in wrong)
        raise ValueError(f"expected the official files of {name}, got {found}; {fix}") from None


class _CIFAR(ImageDataModule):
    reader: Name
    image_shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 256,
        *,
        download: bool = False,
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
        self.data_dir = Path(data_dir).expanduser()
        self.download = download
        self.augment = augment

    def prepare_data(self) -> None:
        """Downloads the archive with torchvision if that was asked for and no files are there."""
        if self.download and _unpacked(self.reader, self.data_dir) is None:
            _reader(self.reader)(self.data_dir, download=True)

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a split, in memory (184 MB for the larger one)."""
        with _files(self.reader, self.data_dir) as folder:
            images = _read(self.reader, folder, train=split == "train")
        # torchvision puts the colors last; in the files, and here, they come first.
        pixels = np.ascontiguousarray(images.data.transpose(0, 3, 1, 2))
        return ImagesInMemory(pixels, np.array(images.targets, dtype=np.int64))

    def normalization(self) -> Normalization:
        """Mean of CIFAR-10 and 1.5 times its standard deviation, for both, as published."""
        return Normalization(MEAN, STD)

    def augmentation(self) -> FlipAndCrop | None:
        """As published: mirrored half of the time, zeros around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2) if self.augment else None


class CIFAR10DataModule(_CIFAR):
    """CIFAR-10: 50,000 and 10,000 images of 10 classes, 32x32 RGB.

    Args:
        data_dir: Folder with `cifar-10-batches-py` (or its files) or `cifar-10-python.tar.gz`.
        batch_size: Images in a batch of one process.
        download: Let torchvision download the archive to `data_dir` if no files are there.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is not the official one (in `setup`).
        FileNotFoundError: A file is missing (in `setup`).
    """

    reader: Name = "CIFAR10"
    num_classes = 10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR100DataModule(_CIFAR):
    """CIFAR-100: 50,000 and 10,000 images of 100 (fine) classes, 32x32 RGB.

    Args:
        data_dir: Folder with `cifar-100-python` (or its files) or `cifar-100-python.tar.gz`.
        batch_size: Images in a batch of one process.
        download: Let torchvision download the archive to `data_dir` if no files are there.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is not the official one (in `setup`).
        FileNotFoundError: A file is missing (in `setup`).
    """

    reader: Name = "CIFAR100"
    num_classes = 100
