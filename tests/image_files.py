"""Tiny data files in the official formats of ImageNet32, CIFAR and Fashion-MNIST."""

import gzip
import hashlib
import io
import pickle
import struct
from typing import ClassVar

import numpy as np
from torchvision import datasets

from fklit.data.imagenet32_cache import TEST_FILES, TRAIN_FILES


def rows(number, seed):
    return np.random.default_rng(seed).integers(0, 256, (number, 3072), dtype=np.uint8)


def write_imagenet32(folder, *, sizes=(3,) * 9 + (5, 4), npz=False):
    """Ten training batches and the validation batch; returns all pixels and labels of training, in file order."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = [], []
    for number, (name, size) in enumerate(zip((*TRAIN_FILES, *TEST_FILES), sizes, strict=True)):
        data = rows(size, number)
        classes = [int(c) for c in np.random.default_rng(100 + number).integers(1, 1001, size)]
        content = {"data": data, "labels": classes}
        if name in TRAIN_FILES:
            content["mean"] = np.full(3072, 120.5)
            pixels.append(data)
            labels += classes
        if npz:
            np.savez(folder / f"{name}.npz", **content)
        else:
            (folder / name).write_bytes(pickle.dumps(content))
    return np.concatenate(pixels).reshape(-1, 3, 32, 32), np.array(labels) - 1


def _save_text(pickler, content):
    pickler.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as the texts of Python 2, which is what the CIFAR files hold."""

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: _save_text}


def python2_pickle(content):
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_cifar10(folder, *, size=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        content = {
            b"batch_label": b"batch",
            b"labels": [(number + n) % 10 for n in range(size)],
            b"data": rows(size, number),
            b"filenames": [b"a.png"] * size,
        }
        (folder / name).write_bytes(python2_pickle(content))
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"name"] * 10}))


def write_cifar100(folder, *, size=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(["train", "test"]):
        content = {
            b"coarse_labels": [1] * size,
            b"fine_labels": [96 + n for n in range(size)],
            b"data": rows(size, number),
        }
        (folder / name).write_bytes(python2_pickle(content))
    (folder / "meta").write_bytes(python2_pickle({b"fine_label_names": [b"name"] * 100}))


def accept_cifar(monkeypatch, reader, folder):
    """Makes torchvision take the files of a folder for the official ones of `reader`, "CIFAR10" or "CIFAR100"."""
    kind = getattr(datasets, reader)

    def digest(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [[name, digest(name)] for name, _ in getattr(kind, part)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest(kind.meta["filename"])})


def idx(array, *, kind=0x08):
    head = struct.pack(">I", 256 * kind + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def write_fashion_mnist(folder, *, size=12):
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(["train", "t10k"]):
        pixels = np.random.default_rng(number).integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
