"""CIFAR, Fashion-MNIST and the digits: official formats, splits, and a sentence for each kind of bad file."""

import gzip
import hashlib
import re
import shutil
import tarfile
from importlib.resources import files

import numpy as np
import pytest
from image_files import idx, python2_pickle, rows, write_cifar10, write_cifar100, write_fashion_mnist

from fklit.data import CIFAR10DataModule, CIFAR100DataModule, DigitsDataModule, FashionMNISTDataModule, verify
from fklit.data.__main__ import main
from fklit.data.digits import read_digits
from fklit.data.fashion_mnist import read_idx
from fklit.data.unpickle import UnsafePickleError


def ready(data):
    data.prepare_data()
    data.setup("fit")
    return data


def write_archive(folder, name, target):
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder / name, arcname=name)


CIFARS = pytest.mark.parametrize(
    ("kind", "write", "name", "train", "classes"),
    [
        (CIFAR10DataModule, write_cifar10, "cifar-10-batches-py", 20, 10),
        (CIFAR100DataModule, write_cifar100, "cifar-100-python", 4, 100),
    ],
    ids=["10", "100"],
)


@CIFARS
def test_cifar_is_read_from_folder_files_and_archive(tmp_path, kind, write, name, train, classes):
    write(tmp_path / name)
    data = ready(kind(str(tmp_path), 4, augment=False))
    assert len(data.train_images.labels) == train and len(data.test_images.labels) == 4
    assert data.num_classes == classes and data.train_images.labels.max() < classes
    assert np.array_equal(data.train_images.pixels[:4].reshape(4, 3072), rows(4, 0))
    batch = next(iter(data.test_dataloader()))
    mean, std = np.array([0.4914, 0.4822, 0.4465]), 1.5 * np.array([0.2023, 0.1994, 0.2010])
    expected = (data.test_images.pixels / 255 - mean[:, None, None]) / std[:, None, None]
    assert np.abs(batch["x"].numpy() - expected).max() < 1e-5 and batch["x"].shape == (4, *data.image_shape)
    (tmp_path / "packed").mkdir()
    write_archive(tmp_path, name, tmp_path / "packed" / kind.archive)
    for place in (tmp_path / name, tmp_path / "packed"):
        other = ready(kind(str(place), 4, augment=False))
        assert np.array_equal(other.train_images.pixels, data.train_images.pixels)
        assert np.array_equal(other.test_images.labels, data.test_images.labels)


def test_cifar100_uses_the_fine_labels(tmp_path):
    write_cifar100(tmp_path)
    assert ready(CIFAR100DataModule(str(tmp_path))).train_images.labels.tolist() == [96, 97, 98, 99]


def test_missing_cifar(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No cifar-10-batches-py and no cifar-10-python\.tar\.gz in .*; put"):
        ready(CIFAR10DataModule(str(tmp_path)))
    write_cifar10(tmp_path)
    for number in (2, 5):
        (tmp_path / f"data_batch_{number}").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2, data_batch_5 missing in .*; unpack cifar-10-python"):
        ready(CIFAR10DataModule(str(tmp_path)))


def test_bad_cifar_files(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "data_batch_3"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"data_batch_3 is truncated or not a pickle"):
        ready(CIFAR10DataModule(str(tmp_path)))
    path.write_bytes(python2_pickle({b"data": rows(1, 0), b"labels": [10]}))
    with pytest.raises(ValueError, match="data_batch_3: label 10 of image 0 is out of range; labels must be 0 to 9"):
        ready(CIFAR10DataModule(str(tmp_path)))
    path.write_bytes(python2_pickle({b"data": rows(1, 0), b"fine_labels": [1]}))
    with pytest.raises(ValueError, match=r"data_batch_3 holds \['data', 'fine_labels'\] and no 'labels'"):
        ready(CIFAR10DataModule(str(tmp_path)))
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafePickleError, match=r"data_batch_3 asks for posix\.system"):
        ready(CIFAR10DataModule(str(tmp_path)))


def test_bad_cifar_archives(tmp_path):
    name, target = "cifar-10-batches-py", tmp_path / "data" / "cifar-10-python.tar.gz"
    target.parent.mkdir()
    write_cifar10(tmp_path / name)
    write_archive(tmp_path, name, target)
    whole = target.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"hello"):
        target.write_bytes(broken)
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is truncated or not the official archive"):
            ready(CIFAR10DataModule(str(target.parent)))
    (tmp_path / name / "data_batch_4").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    write_archive(tmp_path, name, target)
    with pytest.raises(UnsafePickleError, match=r"cifar-10-python\.tar\.gz/data_batch_4 asks for posix\.system"):
        ready(CIFAR10DataModule(str(target.parent)))
    (tmp_path / name / "data_batch_4").unlink()
    write_archive(tmp_path, name, target)
    with pytest.raises(ValueError, match=r"not the official archive .*data_batch_4.* not found"):
        ready(CIFAR10DataModule(str(target.parent)))


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
    with pytest.raises(ValueError, match="padding=-1 was given"):
        FashionMNISTDataModule(str(tmp_path), padding=-1)


def test_bad_fashion_mnist_files(tmp_path):
    write_fashion_mnist(tmp_path)
    pixels, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    whole = pixels.read_bytes()
    header = gzip.decompress(whole)[:100]
    many = np.zeros(12, dtype=np.uint8)
    cases = [
        (pixels, whole[:-100], r"train-images-idx3-ubyte\.gz is truncated or not gzip"),
        (pixels, b"hello", r"train-images-idx3-ubyte\.gz is truncated or not gzip"),
        (pixels, gzip.compress(header), "holds 84 bytes and its header says 9408; it is truncated or corrupt"),
        (pixels, gzip.compress(b"ab"), r"is not an idx file with 3 axes \(it must start with the number 2051\)"),
        (pixels, idx(many), "is not an idx file with 3 axes"),
        (pixels, idx(np.zeros((12, 8, 8), dtype=np.uint8)), r"holds images of \(8, 8\); they must be 28x28"),
        (labels, idx(many[:5]), "holds 12 images and train-labels-idx1-ubyte.gz 5 labels"),
        (labels, idx(many + 10), "label 10 is out of range; labels must be 0 to 9"),
    ]
    for path, content, message in cases:
        before = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ready(FashionMNISTDataModule(str(tmp_path)))
        path.write_bytes(before)
    for path in (pixels, labels):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz, train-labels-idx1-ubyte\.gz missing in"):
        ready(FashionMNISTDataModule(str(tmp_path)))
    with pytest.raises(FileNotFoundError):
        read_idx(pixels, 3)


def test_the_shipped_digits():
    path = files("fklit.data") / "shipped" / "digits.csv.gz"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in (files("fklit.data") / "shipped" / "README.md").read_text()
    digits = read_digits(str(path))
    assert digits.pixels.shape == (1797, 1, 8, 8) and digits.pixels.max() == 16
    assert digits.labels[:10].tolist() == list(range(10)) and np.bincount(digits.labels).min() == 174
    assert digits.pixels[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_digits_split():
    data = ready(DigitsDataModule(batch_size=360))
    assert len(data.train_images.labels) == 1437 and len(data.test_images.labels) == 360
    both = np.concatenate([data.train_images.pixels, data.test_images.pixels]).reshape(1797, -1)
    everything = read_digits(str(files("fklit.data") / "shipped" / "digits.csv.gz")).pixels.reshape(1797, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, everything))
    assert np.bincount(data.test_images.labels).min() > 20
    batch = next(iter(data.test_dataloader()))
    assert batch["x"].shape == (360, 1, 8, 8) and float(batch["x"].max()) == 1 and float(batch["x"].min()) == 0


def test_digits_from_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No digits\.csv\.gz or optdigits\.tes in .*copy that ships"):
        ready(DigitsDataModule(str(tmp_path)))
    shutil.copy(str(files("fklit.data") / "shipped" / "digits.csv.gz"), tmp_path)
    packed = tmp_path / "digits.csv.gz"
    data = ready(DigitsDataModule(str(tmp_path)))
    assert np.array_equal(data.train_images.pixels, ready(DigitsDataModule()).train_images.pixels)
    text = gzip.decompress(packed.read_bytes())
    packed.unlink()
    plain = tmp_path / "optdigits.tes"
    plain.write_bytes(text)
    assert np.array_equal(ready(DigitsDataModule(str(tmp_path))).train_images.pixels, data.train_images.pixels)
    for bad, message in [
        (text[:-20], "is truncated or not a table of digits"),
        (b"", "must be whole numbers, 65 a line"),
        (b"1,2\n3,4\n", r"is a table of shape \(2, 2\)"),
        (text.replace(b"16", b"17"), "pixels must be 0 to 16 and labels 0 to 9"),
        (text.replace(b"16", b"15.5"), "must be whole numbers"),
        (b"\xff", "is truncated or not a table of digits"),
    ]:
        plain.write_bytes(bad)
        with pytest.raises(ValueError, match=rf"optdigits\.tes.*{message}"):
            ready(DigitsDataModule(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "write", "expected", "algorithm"),
    [
        ("cifar10", write_cifar10, "CIFAR10_MD5", "md5"),
        ("cifar100", write_cifar100, "CIFAR100_MD5", "md5"),
        ("fashion_mnist", write_fashion_mnist, "FASHION_MNIST_SHA256", "sha256"),
    ],
)
def test_checksums(tmp_path, capsys, monkeypatch, name, write, expected, algorithm):
    assert main(["verify", name, str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("missing ")
    write(tmp_path)
    known = getattr(verify, expected)
    assert main(["verify", name, str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known)
    for line, (file, digest) in zip(lines, known.items(), strict=True):
        assert re.fullmatch(rf"wrong +{re.escape(file)}: {algorithm} [0-9a-f]+, expected {digest}", line)
    for file in list(known):
        content = (tmp_path / file).read_bytes()
        if file.endswith(".gz"):  # whatever is in the header
            content = gzip.decompress(content)
            (tmp_path / file).write_bytes(gzip.compress(content, 1, mtime=7))
        monkeypatch.setitem(known, file, hashlib.new(algorithm, content).hexdigest())
    assert main(["verify", name, str(tmp_path)]) == 0
    good = rf"ok +\S+: {algorithm} [0-9a-f]+"
    assert all(re.fullmatch(good, line) for line in capsys.readouterr().out.splitlines())
    if name == "fashion_mnist":
        path = tmp_path / file
        path.write_bytes(path.read_bytes()[:-9])
        assert main(["verify", name, str(tmp_path)]) == 1
        assert re.search(rf"wrong +{re.escape(file)}: truncated or not gzip", capsys.readouterr().out)


def test_the_checksum_of_an_archive(tmp_path, capsys):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"hello")
    assert main(["verify", "cifar10", str(tmp_path)]) == 1
    found = hashlib.md5(b"hello").hexdigest()
    assert capsys.readouterr().out == (
        f"wrong   cifar-10-python.tar.gz: md5 {found}, expected c58f30108f718f92721af3b95e74349a\n"
    )


def test_an_unknown_data_set():
    with pytest.raises(ValueError, match="The data set 'mnist' was given; give one of cifar10, cifar100"):
        verify.verify("mnist", ".")
