"""Checks data files against known checksums, and reads the files that have none.

``python -m fklit.data verify NAME DIR``
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fklit.data.imagenet32 import NUM_CLASSES, TEST_FILES, TRAIN_FILES, find_batch
from fklit.data.planar_batches import read_batch
from fklit.emoji.art import SHA256, STYLES
from fklit.emoji.tiles import archive_path

# md5, as torchvision's loaders check them.
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_ARCHIVE_MD5 = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
CIFAR100_MD5 = {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
CIFAR100_ARCHIVE_MD5 = {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}
# sha256 of what the files unpack to: the gzip header holds a name and a time, which Debian's package leaves out.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Batches 1 to 9 hold a tenth of the 1,281,167 images, rounded down; batch 10 holds the rest.
IMAGENET32_IMAGES = dict.fromkeys(TRAIN_FILES[:-1], 128_116) | {TRAIN_FILES[-1]: 128_123, TEST_FILES[0]: 50_000}


@dataclass(frozen=True)
class Finding:
    """What was found about one file.

    Attributes:
        name: The file.
        verdict: ``"ok"`` (checksum or, where none is known, contents as expected), ``"missing"`` or ``"wrong"``.
        detail: The checksum, and what is wrong.
    """

    name: str
    verdict: Literal["ok", "missing", "wrong"]
    detail: str


def checksum(path: Path, algorithm: str, *, unpack: bool = False) -> str:
    """Hexadecimal checksum of a file, or of what a gzip file unpacks to; read in pieces.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: A file to be unpacked is truncated or damaged.
    """
    digest = hashlib.new(algorithm)
    with gzip.open(path, "rb") if unpack else open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _compare(root: Path, expected: dict[str, str], algorithm: str, *, unpack: bool = False) -> Iterator[Finding]:
    for name, wanted in expected.items():
        path = root / name
        if not path.is_file():
            yield Finding(name, "missing", f"not in {root}")
            continue
        try:
            found = checksum(path, algorithm, unpack=unpack)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield Finding(name, "wrong", f"truncated or not gzip ({error})")
            continue
        detail = f"{algorithm} {found}" if found == wanted else f"{algorithm} {found}, expected {wanted}"
        yield Finding(name, "ok" if found == wanted else "wrong", detail)


def _cifar(folder: str, files: dict[str, str], archive: dict[str, str]) -> Callable[[Path], Iterator[Finding]]:
    def verify(root: Path) -> Iterator[Finding]:
        for place in (root / folder, root):
            if any((place / name).is_file() for name in files):
                yield from _compare(place, files, "md5")
                return
        yield from _compare(root, archive, "md5")

    return verify


def _fashion_mnist(root: Path) -> Iterator[Finding]:
    yield from _compare(root, FASHION_MNIST_SHA256, "sha256", unpack=True)


def _emoji(root: Path) -> Iterator[Finding]:
    for style in STYLES:
        yield from _compare(root, {archive_path(root, style).name: SHA256[style]}, "sha256")


def _imagenet32(root: Path) -> Iterator[Finding]:
    """No published checksum is known: every file is read, its contents are checked, and its sha256 is printed."""
    for name, wanted in IMAGENET32_IMAGES.items():
        path = find_batch(root, name)
        if path is None:
            yield Finding(name, "missing", f"neither {name} nor {name}.npz is in {root}")
            continue
        digest = f"sha256 {checksum(path, 'sha256')}"
        try:
            found = len(read_batch(path, first=1, num_classes=NUM_CLASSES).labels)
        except ValueError as error:
            yield Finding(path.name, "wrong", f"{digest}; {error}")
            continue
        if found == wanted:
            yield Finding(path.name, "ok", f"{digest}; {found} images, labels 1 to {NUM_CLASSES}")
        else:
            yield Finding(path.name, "wrong", f"{digest}; {found} images, expected {wanted}")


VERIFIERS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "cifar10": _cifar("cifar-10-batches-py", CIFAR10_MD5, CIFAR10_ARCHIVE_MD5),
    "cifar100": _cifar("cifar-100-python", CIFAR100_MD5, CIFAR100_ARCHIVE_MD5),
    "emoji": _emoji,
    "fashion_mnist": _fashion_mnist,
    "imagenet32": _imagenet32,
}


def verify(name: str, data_dir: str | Path) -> Iterator[Finding]:
    """Checks the files of a data set, one after the other.

    Args:
        name: One of ``VERIFIERS``.
        data_dir: The folder that its data module takes.

    Raises:
        ValueError: There is no such data set.
    """
    if name not in VERIFIERS:
        raise ValueError(f"The data set {name!r} was given; give one of {', '.join(VERIFIERS)}.")
    return VERIFIERS[name](Path(data_dir).expanduser())
