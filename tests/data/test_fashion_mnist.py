"""Fashion-MNIST: the official format, read by torchvision, and an actionable error for each kind of bad file."""

import gzip
import hashlib
import re

import numpy as np
import pytest
from image_files import idx, write_fashion_mnist
from torchvision import datasets

from fklit.data import FashionMNISTDataModule, fashion_mnist
from fklit.data.__main__ import main
from fklit.data.fashion_mnist import read_idx


def ready(data):
    data.prepare_data()
    data.setup("fit")
    return data


def test_fashion_mnist(tmp_path):
    write_fashion_mnist(tmp_path)
    data = ready(FashionMNISTDataModule(str(tmp_path), 12))
    batch = next(iter(data.val_dataloader()))
    assert batch["x"].shape == (12, 1, 28, 28) and batch["y"].tolist() == [n % 10 for n in range(12)]
    assert np.array_equal((batch["x"].numpy() * 255).round().astype(np.uint8), data.test_images.pixels)
    assert float(batch["x"].min()) == 0 and float(batch["x"].max()) == 1


def test_fashion_mnist_padded_and_standardized(tmp_path):
    write_fashion_mnist(tmp_path)
    plain = next(iter(ready(FashionMNISTDataModule(str(tmp_path), 12)).val_dataloader()))["x"]
    data = ready(FashionMNISTDataModule(str(tmp_path), 12, padding=2, standardize=True))
    x = next(iter(data.val_dataloader()))["x"]
    assert x.shape == (12, 1, 32, 32) == (12, *data.image_shape)
    assert np.abs(x[:, :, 2:-2, 2:-2].numpy() - (plain.numpy() - 0.286) / 0.353).max() < 1e-5
    assert np.abs(x[:, :, :2].numpy() + 0.286 / 0.353).max() < 1e-5
    with pytest.raises(ValueError, match="expected padding of at least 0, got -1"):
        FashionMNISTDataModule(str(tmp_path), padding=-1)


def test_bad_fashion_mnist_files(tmp_path):
    write_fashion_mnist(tmp_path)
    pixels, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    whole = pixels.read_bytes()
    header = gzip.decompress(whole)[:100]
    many = np.zeros(12, dtype=np.uint8)
    bad_idx = r"expected an idx file of images, got .*train-images-idx3-ubyte\.gz, which is truncated or another"
    cases = [
        (pixels, whole[:-100], r"expected gzip, got .*train-images-idx3-ubyte\.gz, which is truncated"),
        (pixels, b"hello", r"expected gzip, got .*train-images-idx3-ubyte\.gz, which is truncated"),
        (pixels, gzip.compress(header), bad_idx),
        (pixels, gzip.compress(b"ab"), bad_idx),
        (pixels, gzip.compress(b""), bad_idx),
        (pixels, idx(many), bad_idx),
        (pixels, idx(np.zeros((12, 28, 28), dtype=np.uint8), kind=0x0D), bad_idx),
        (labels, idx(np.zeros((12, 28, 28), dtype=np.uint8)), "expected an idx file of labels, got .*train-labels"),
        (pixels, idx(np.zeros((12, 8, 8), dtype=np.uint8)), r"expected images of 28x28, got \(8, 8\)"),
        (labels, idx(many[:5]), "expected as many labels as images, got 5 in train-labels-idx1-ubyte.gz and 12"),
        (labels, idx(many + 10), "expected labels from 0 to 9, got 10"),
    ]
    for path, content, message in cases:
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ready(FashionMNISTDataModule(str(tmp_path)))
        path.write_bytes(before)
    for path in (pixels, labels):
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"without train-images-idx3-ubyte\.gz, train-labels-idx1-ubyte\.gz; put"
    ):
        ready(FashionMNISTDataModule(str(tmp_path)))
    with pytest.raises(FileNotFoundError):
        read_idx(pixels, "images")


def test_what_torchvision_downloaded_is_found_and_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    calls = []

    def download(url, download_root, filename, md5):
        calls.append(filename)
        write_fashion_mnist(tmp_path / "data" / "FashionMNIST" / "raw")
        (tmp_path / "data" / "FashionMNIST" / "raw" / filename.removesuffix(".gz")).write_bytes(
            gzip.decompress((tmp_path / "data" / "FashionMNIST" / "raw" / filename).read_bytes())
        )

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", download)
    with pytest.raises(FileNotFoundError):
        ready(FashionMNISTDataModule(str(tmp_path / "data")))
    assert not calls
    for _ in range(2):  # the second finds the files
        data = ready(FashionMNISTDataModule(str(tmp_path / "data"), download=True))
    write_fashion_mnist(tmp_path / "plain")
    plain = ready(FashionMNISTDataModule(str(tmp_path / "plain")))
    assert np.array_equal(data.train_images.pixels, plain.train_images.pixels) and len(calls) == 4


def test_checksums(tmp_path, capsys, monkeypatch):
    known = fashion_mnist.SHA256
    assert main(["verify", "fashion_mnist", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("missing ")
    write_fashion_mnist(tmp_path)
    assert main(["verify", "fashion_mnist", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known) == 4
    for line, (file, digest) in zip(lines, known.items(), strict=True):
        assert re.fullmatch(rf"wrong +{re.escape(file)}: expected sha256 {digest}, got [0-9a-f]+", line)
    for file in list(known):
        content = gzip.decompress((tmp_path / file).read_bytes())
        (tmp_path / file).write_bytes(gzip.compress(content, 1, mtime=7))  # whatever is in the header
        monkeypatch.setitem(known, file, hashlib.sha256(content).hexdigest())
    assert main(["verify", "fashion_mnist", str(tmp_path)]) == 0
    assert all(re.fullmatch(r"ok +\S+: sha256 [0-9a-f]+", line) for line in capsys.readouterr().out.splitlines())
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-9])
    assert main(["verify", "fashion_mnist", str(tmp_path)]) == 1
    assert re.search(rf"wrong +{re.escape(file)}: truncated or not gzip", capsys.readouterr().out)
