"""Checks data files against published checksums, and reads the files that have none.

`python -m fklit.data verify NAME DIR`
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fklit.data.checksums import Finding, checksum
from fklit.data.cifar import verify_cifar
from fklit.data.fashion_mnist import verify_fashion_mnist
from fklit.data.imagenet32_cache import NUM_CLASSES, TEST_FILES, TRAIN_FILES, find_batch
from fklit.data.planar_batches import read_batch

# Batches 1 to 9 hold a tenth of the 1,281,167 images, rounded down; batch 10 holds the rest.
IMAGENET32_IMAGES = dict.fromkeys(TRAIN_FILES[:-1], 128_116) | {TRAIN_FILES[-1]: 128_123, TEST_FILES[0]: 50_000}


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
            yield Finding(path.name, "wrong", f"{digest}; expected {wanted} images, got {found}")


VERIFIERS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "cifar10": partial(verify_cifar, "CIFAR10"),
    "cifar100": partial(verify_cifar, "CIFAR100"),
    "fashion_mnist": verify_fashion_mnist,
    "imagenet32": _imagenet32,
}
