"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official Python archives."""

import io
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from fklit.data.image_batches import FlipAndCrop, ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule
from fklit.data.planar_batches import PlanarBatch, read_batch

# Mean and 1.5 times the standard deviation of CIFAR-10, also used for CIFAR-100 (the authors of the homeostatic loss).
MEAN = (0.4914, 0.4822, 0.4465)
STD = (1.5 * 0.2023, 1.5 * 0.1994, 1.5 * 0.2010)


class _CIFAR(ImageDataModule):
    folder: str
    archive: str
    files: dict[Literal["train", "test"], tuple[str, ...]]
    label_key: str
    image_shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 256,
        *,
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
        self.augment = augment

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a split, in memory (184 MB for the larger one)."""
        names = self.files[split]
        for root in (self.data_dir / self.folder, self.data_dir):
            missing = [name for name in names if not (root / name).is_file()]
            if not missing:
                return self._join([self._read(root / name) for name in names])
            if len(missing) < len(names):
                raise FileNotFoundError(f"{', '.join(missing)} missing in {root}; unpack {self.archive} again.")
        archive = self.data_dir / self.archive
        if not archive.is_file():
            raise FileNotFoundError(
                f"No {self.folder} and no {self.archive} in {self.data_dir}; put the official Python archive there, or "
                "what it unpacks to (data/README.md of the project says where it comes from)."
            )
        return self._join(self._unpack(archive, names))

    def _read(self, path: Path, stream: BinaryIO | None = None) -> PlanarBatch:
        return read_batch(path, label_key=self.label_key, num_classes=self.num_classes, stream=stream)

    def _unpack(self, archive: Path, names: tuple[str, ...]) -> list[PlanarBatch]:
        streams: list[BinaryIO] = []
        try:
            with tarfile.open(archive) as tar:
                for name in names:
                    member = tar.extractfile(f"{self.folder}/{name}")
                    streams.append(io.BytesIO(b"" if member is None else member.read()))
        except (tarfile.TarError, EOFError, OSError, KeyError, zlib.error) as error:
            raise ValueError(f"{archive} is truncated or not the official archive ({error}); fetch it again.") from None
        return [self._read(archive / name, stream) for name, stream in zip(names, streams, strict=True)]

    def _join(self, batches: list[PlanarBatch]) -> ImagesInMemory:
        pixels = np.concatenate([batch.data for batch in batches]).reshape(-1, 3, 32, 32)
        return ImagesInMemory(pixels, np.concatenate([batch.labels for batch in batches]))

    def normalization(self) -> Normalization:
        """Mean of CIFAR-10 and 1.5 times its standard deviation, for both, as published."""
        return Normalization(MEAN, STD)

    def augmentation(self) -> FlipAndCrop | None:
        """As published: mirrored half of the time, zeros around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2) if self.augment else None


class CIFAR10DataModule(_CIFAR):
    """CIFAR-10: 50,000 and 10,000 images of 10 classes, 32x32 RGB.

    Args:
        data_dir: Folder with ``cifar-10-batches-py`` (or its files) or ``cifar-10-python.tar.gz``.
        batch_size: Images in a batch of one process.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in ``setup``).
        FileNotFoundError: A file is missing (in ``setup``).
    """

    folder = "cifar-10-batches-py"
    archive = "cifar-10-python.tar.gz"
    files: dict[Literal["train", "test"], tuple[str, ...]] = {  # noqa: RUF012 - never changed
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    }
    label_key = "labels"
    num_classes = 10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR100DataModule(_CIFAR):
    """CIFAR-100: 50,000 and 10,000 images of 100 (fine) classes, 32x32 RGB.

    Args:
        data_dir: Folder with ``cifar-100-python`` (or its files) or ``cifar-100-python.tar.gz``.
        batch_size: Images in a batch of one process.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in ``setup``).
        FileNotFoundError: A file is missing (in ``setup``).
    """

    folder = "cifar-100-python"
    archive = "cifar-100-python.tar.gz"
    files: dict[Literal["train", "test"], tuple[str, ...]] = {"train": ("train",), "test": ("test",)}  # noqa: RUF012
    label_key = "fine_labels"
    num_classes = 100
