"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747) from the official ``idx`` files."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fklit.data.image_batches import ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule

FILES: dict[Literal["train", "test"], tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
MEAN, STD = (0.2860,), (0.3530,)


def read_idx(path: str | Path, axes: int) -> npt.NDArray[np.uint8]:
    """Reads a gzipped ``idx`` file of bytes.

    Args:
        path: The file.
        axes: How many axes the array must have: 3 for images, 1 for labels.

    Raises:
        ValueError: The file is truncated, is not of that format or has another number of axes.
        FileNotFoundError: There is no such file.
    """
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or not gzip ({error}); fetch it again.") from None
    head = 4 + 4 * axes
    magic = 0x0800 + axes  # unsigned bytes, then the number of axes
    if len(content) < head or struct.unpack(">I", content[:4])[0] != magic:
        raise ValueError(f"{path} is not an idx file with {axes} axes (it must start with the number {magic}).")
    shape = struct.unpack(f">{axes}I", content[4:head])
    size = int(np.prod(shape, dtype=object))
    if len(content) != head + size:
        raise ValueError(
            f"{path} holds {len(content) - head} bytes and its header says {size}; it is truncated or corrupt, fetch "
            "it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape).copy()


class FashionMNISTDataModule(ImageDataModule):
    """Fashion-MNIST: 60,000 and 10,000 gray images of 10 kinds of clothing, 28x28, white on black.

    Args:
        data_dir: Folder of the four official ``.gz`` files.
        batch_size: Images in a batch of one process.
        padding: Black pixels added to every side: 2 gives the 32x32 that convolutional networks here take.
        standardize: Subtract the mean (0.2860) and divide by the standard deviation (0.3530) of the training pixels.
            The published runs do not: they feed pixels in [0, 1], without augmentation.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in ``setup``).
        FileNotFoundError: A file is missing (in ``setup``).
    """

    num_classes = 10
    class_names = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 50,
        *,
        padding: int = 0,
        standardize: bool = False,
        num_train: int | None = None,
        num_test: int | None = None,
        holdout: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size, num_train=num_train, num_test=num_test, holdout=holdout, seed=seed, num_workers=num_workers
        )
        if padding < 0:
            raise ValueError(f"padding={padding} was given; give a whole number of at least 0.")
        self.data_dir = Path(data_dir).expanduser()
        self.padding = padding
        self.standardize = standardize
        self.image_shape = (1, 28 + 2 * padding, 28 + 2 * padding)

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a split, in memory."""
        missing = [name for name in FILES[split] if not (self.data_dir / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(missing)} missing in {self.data_dir}; put the four official .gz files there "
                "(data/README.md of the project says where they come from)."
            )
        image_path, label_path = (self.data_dir / name for name in FILES[split])
        pixels, labels = read_idx(image_path, 3), read_idx(label_path, 1)
        if pixels.shape[1:] != (28, 28):
            raise ValueError(f"{image_path} holds images of {pixels.shape[1:]}; they must be 28x28.")
        if len(pixels) != len(labels):
            raise ValueError(f"{image_path} holds {len(pixels)} images and {label_path.name} {len(labels)} labels.")
        if labels.size and labels.max() > 9:
            raise ValueError(f"{label_path}: label {labels.max()} is out of range; labels must be 0 to 9.")
        sides = (self.padding, self.padding)
        return ImagesInMemory(np.pad(pixels, ((0, 0), sides, sides))[:, None], labels.astype(np.int64))

    def normalization(self) -> Normalization:
        """Pixels in [0, 1], or standardized."""
        return Normalization(MEAN, STD) if self.standardize else Normalization((0.0,), (1.0,))
