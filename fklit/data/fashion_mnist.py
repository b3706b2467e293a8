"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747), read by torchvision from the official `idx` files."""

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fklit.data.checksums import Finding, compare
from fklit.data.image_batches import ImagesInMemory, Normalization
from fklit.data.image_module import ImageDataModule

FILES: dict[Literal["train", "test"], tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
# sha256 of what the files unpack to: the gzip header holds a name and a time, which Debian's package omits.
SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MEAN, STD = (0.2860,), (0.3530,)


def _folder(data_dir: Path) -> Path:
    """Where the files are: `data_dir`, or the folder below it to which torchvision downloads."""
    downloaded = data_dir / "FashionMNIST" / "raw"
    files = [name for names in FILES.values() for name in names]
    here = any((data_dir / name).is_file() for name in files)
    return downloaded if not here and any((downloaded / name).is_file() for name in files) else data_dir


def verify_fashion_mnist(data_dir: Path) -> Iterator[Finding]:
    """Compares what the four files unpack to with the sha256 of the official ones.

    Args:
        data_dir: The folder that the data module takes.
    """
    yield from compare(_folder(data_dir), SHA256, "sha256", unpack=True)


def read_idx(path: str | Path, content: Literal["images", "labels"]) -> npt.NDArray[np.generic]:
    """Reads a gzipped `idx` file of bytes.

    Args:
        path: The file.
        content: What must be in it: images, uint8 `(n, h, w)`, or labels, int64 `(n,)`.

    Raises:
        ValueError: The file is truncated or holds something else.
        FileNotFoundError: There is no such file.
    """
    from torchvision.datasets import mnist

    packed = Path(path).read_bytes()
    with tempfile.TemporaryDirectory() as scratch:  # torchvision reads unpacked files only
        unpacked = Path(scratch) / "idx"
        try:
            unpacked.write_bytes(gzip.decompress(packed))
            read = mnist.read_image_file if content == "images" else mnist.read_label_file
            array: npt.NDArray[np.generic] = read(str(unpacked)).numpy()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"expected gzip, got {path}, which is truncated or another ({error}); fetch it again."
            ) from None
        # Its checks are assertions, so that a damaged header fails wherever its numbers lead.
        except (AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"expected an idx file of {content}, got {path}, which is truncated or another ({reason}); fetch it "
                "again."
            ) from None
    return array


class FashionMNISTDataModule(ImageDataModule):
    """Fashion-MNIST: 60,000 and 10,000 gray images of 10 kinds of clothing, 28x28, white on black.

    Args:
        data_dir: Folder of the four official `.gz` files, or the one that torchvision downloaded to.
        batch_size: Images in a batch of one process.
        download: Let torchvision download the files to `data_dir` if none are there.
        padding: Black pixels added to every side: 2 gives the 32x32 that convolutional networks here take.
        standardize: Subtract the mean (0.2860) and divide by the standard deviation (0.3530) of the training pixels.
            The published runs do not: they feed pixels in [0, 1], without augmentation.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in `setup`).
        FileNotFoundError: A file is missing (in `setup`).
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
        download: bool = False,
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
            raise ValueError(f"expected padding of at least 0, got {padding}; give an integer.")
        self.data_dir = Path(data_dir).expanduser()
        self.download = download
        self.padding = padding
        self.standardize = standardize
        self.image_shape = (1, 28 + 2 * padding, 28 + 2 * padding)

    def prepare_data(self) -> None:
        """Downloads the files with torchvision if that was asked for and none are there."""
        if self.download and not any((_folder(self.data_dir) / name).is_file() for name in SHA256):
            from torchvision import datasets

            datasets.FashionMNIST(self.data_dir, download=True)

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a split, in memory."""
        folder = _folder(self.data_dir)
        missing = [name for name in FILES[split] if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"expected the four official .gz files, got {self.data_dir} without {', '.join(missing)}; put them "
                "there (data/README.md of the project says where they come from)."
            )
        image_path, label_path = (folder / name for name in FILES[split])
        pixels, labels = (
            read_idx(image_path, "images").astype(np.uint8),
            read_idx(label_path, "labels").astype(np.int64),
        )
        if pixels.shape[1:] != (28, 28):
            raise ValueError(f"expected images of 28x28, got {pixels.shape[1:]} in {image_path}; fetch it again.")
        if len(pixels) != len(labels):
            raise ValueError(
                f"expected as many labels as images, got {len(labels)} in {label_path.name} and {len(pixels)} in "
                f"{image_path}; fetch both again."
            )
        if labels.size and labels.max() > 9:
            raise ValueError(f"expected labels from 0 to 9, got {labels.max()} in {label_path}; fetch it again.")
        sides = (self.padding, self.padding)
        return ImagesInMemory(np.pad(pixels, ((0, 0), sides, sides))[:, None], labels)

    def normalization(self) -> Normalization:
        """Pixels in [0, 1], or standardized."""
        return Normalization(MEAN, STD) if self.standardize else Normalization((0.0,), (1.0,))
