"""CIFAR-10 and CIFAR-100: the official formats, read by torchvision, and nothing but the official files."""

import hashlib
import os
import pickle
import re
import shutil
import tarfile

import numpy as np
import pytest
from image_files import accept_cifar, rows, write_cifar10, write_cifar100
from torchvision import datasets

from fklit.data import CIFAR10DataModule, CIFAR100DataModule
from fklit.data.__main__ import main

NAME = "cifar-10-batches-py"


def ready(data):
    data.prepare_data()
    data.setup("fit")
    return data


def write_archive(folder, name, target):
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder / name, arcname=name)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    write_cifar10(tmp_path / NAME)
    accept_cifar(monkeypatch, "CIFAR10", tmp_path / NAME)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "write", "name", "train", "classes"),
    [
        (CIFAR10DataModule, write_cifar10, NAME, 20, 10),
        (CIFAR100DataModule, write_cifar100, "cifar-100-python", 4, 100),
    ],
    ids=["10", "100"],
)
def test_cifar_is_read_from_folder_files_and_archive(tmp_path, monkeypatch, kind, write, name, train, classes):
    write(tmp_path / name)
    accept_cifar(monkeypatch, kind.reader, tmp_path / name)
    data = ready(kind(str(tmp_path), 4, augment=False))
    assert len(data.train_images.labels) == train and len(data.test_images.labels) == 4
    assert data.num_classes == classes and data.train_images.labels.max() < classes
    assert data.train_images.labels.dtype == np.int64 and data.train_images.pixels.flags["C_CONTIGUOUS"]
    assert np.array_equal(data.train_images.pixels[:4].reshape(4, 3072), rows(4, 0))
    assert np.array_equal(data.test_images.pixels.reshape(4, 3072), rows(4, 5 if classes == 10 else 1))
    batch = next(iter(data.test_dataloader()))
    mean, std = np.array([0.4914, 0.4822, 0.4465]), 1.5 * np.array([0.2023, 0.1994, 0.2010])
    expected = (data.test_images.pixels / 255 - mean[:, None, None]) / std[:, None, None]
    assert np.abs(batch["x"].numpy() - expected).max() < 1e-5 and batch["x"].shape == (4, *data.image_shape)
    (tmp_path / "packed").mkdir()
    write_archive(
        tmp_path,
        name,
        tmp_path / "packed" / f"{name.removesuffix('-batches-py').removesuffix('-python')}-python.tar.gz",
    )
    for place in (tmp_path / name, tmp_path / "packed"):
        other = ready(kind(str(place), 4, augment=False))
        assert np.array_equal(other.train_images.pixels, data.train_images.pixels)
        assert np.array_equal(other.test_images.labels, data.test_images.labels)
    assert [path.name for path in (tmp_path / "packed").iterdir()] == [
        path.name for path in (tmp_path / "packed").glob("*.tar.gz")
    ]


def test_the_order_of_the_files_is_kept(cifar10):
    labels = ready(CIFAR10DataModule(str(cifar10))).train_images.labels
    assert labels.tolist() == [(number + n) % 10 for number in range(5) for n in range(4)]


def test_cifar100_uses_the_fine_labels(tmp_path, monkeypatch):
    write_cifar100(tmp_path)
    accept_cifar(monkeypatch, "CIFAR100", tmp_path)
    assert ready(CIFAR100DataModule(str(tmp_path))).train_images.labels.tolist() == [96, 97, 98, 99]


def test_missing_files_are_named(cifar10, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"expected cifar-10-batches-py or cifar-10-python\.tar\.gz in .*; put"):
        ready(CIFAR10DataModule(str(empty)))
    for number in (2, 5):
        (cifar10 / NAME / f"data_batch_{number}").unlink()
    with pytest.raises(FileNotFoundError, match=r"without data_batch_2, data_batch_5; unpack cifar-10-python\.tar\.gz"):
        ready(CIFAR10DataModule(str(cifar10)))


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_file_that_is_not_official_is_refused_and_not_run(cifar10, file):
    target = str(cifar10 / "target")
    path = cifar10 / NAME / file
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=rf"got .*{re.escape(file)} \(expected md5 \w+, got \w+\); unpack"):
        ready(CIFAR10DataModule(str(cifar10)))
    path.write_bytes(pickle.dumps({"data": rows(1, 0), "labels": [1], "label_names": Payload(target)}))
    with pytest.raises(ValueError, match=rf"got .*{re.escape(file)} \(expected md5 \w+, got \w+\); unpack"):
        ready(CIFAR10DataModule(str(cifar10)))
    archive = cifar10 / "packed" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    write_archive(cifar10, NAME, archive)
    with pytest.raises(ValueError, match=rf"got .*{re.escape(file)} \(expected md5 \w+, got \w+\); unpack"):
        ready(CIFAR10DataModule(str(archive.parent)))
    assert not os.path.exists(target)
    pickle.loads(path.read_bytes())  # which is what a reader without the check would do
    assert os.path.exists(target)


def test_bad_archives(cifar10):
    archive = cifar10 / "packed" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    write_archive(cifar10, NAME, archive)
    whole = archive.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"hello"):
        archive.write_bytes(broken)
        with pytest.raises(ValueError, match=r"got .*cifar-10-python\.tar\.gz, which is truncated or another one"):
            ready(CIFAR10DataModule(str(archive.parent)))
    (cifar10 / NAME / "data_batch_4").unlink()
    write_archive(cifar10, NAME, archive)
    with pytest.raises(ValueError, match=r"which is truncated or another one .*data_batch_4.* not found"):
        ready(CIFAR10DataModule(str(archive.parent)))


def test_downloads_happen_only_when_asked_for(tmp_path, monkeypatch):
    """The download is torchvision's; here, it copies."""
    source = tmp_path / "source"
    write_cifar10(source / NAME)
    accept_cifar(monkeypatch, "CIFAR10", source / NAME)
    calls = []

    def download(url, root, filename, md5):
        calls.append((filename, md5))
        shutil.copytree(source / NAME, root / NAME)

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", download)
    with pytest.raises(FileNotFoundError):
        ready(CIFAR10DataModule(str(tmp_path / "data")))
    assert not calls
    for _ in range(2):  # the second finds the files
        data = ready(CIFAR10DataModule(str(tmp_path / "data"), download=True))
    assert len(data.train_images.labels) == 20
    assert calls == [("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")]


@pytest.mark.parametrize(
    ("reader", "write", "files"),
    [
        ("CIFAR10", write_cifar10, [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch", "batches.meta"]),
        ("CIFAR100", write_cifar100, ["train", "test", "meta"]),
    ],
)
def test_checksums(tmp_path, capsys, monkeypatch, reader, write, files):
    assert main(["verify", reader.lower(), str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("missing ")
    write(tmp_path)
    assert main(["verify", reader.lower(), str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(files)
    for line, file in zip(lines, files, strict=True):
        found = hashlib.md5((tmp_path / file).read_bytes()).hexdigest()
        assert re.fullmatch(rf"wrong +{re.escape(file)}: expected md5 [0-9a-f]{{32}}, got {found}", line)
    accept_cifar(monkeypatch, reader, tmp_path)
    assert main(["verify", reader.lower(), str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"ok +\S+: md5 [0-9a-f]+", line) for line in lines) and len(lines) == len(files)


def test_the_checksum_of_an_archive(tmp_path, capsys):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"hello")
    assert main(["verify", "cifar10", str(tmp_path)]) == 1
    found = hashlib.md5(b"hello").hexdigest()
    assert capsys.readouterr().out == (
        f"wrong   cifar-10-python.tar.gz: expected md5 c58f30108f718f92721af3b95e74349a, got {found}\n"
    )
