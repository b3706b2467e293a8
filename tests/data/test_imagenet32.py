"""ImageNet32: official formats, conversion, label orders, and an actionable error for each kind of bad file."""

import json
import os
import pickle
import re
import runpy
import sys

import numpy as np
import pytest
from image_files import rows, write_imagenet32

from fklit.data import imagenet32
from fklit.data.__main__ import main
from fklit.data.image_batches import Draw, ImageDataset
from fklit.data.imagenet32 import ImageNet32DataModule, imagenet32_classes, label_map
from fklit.data.imagenet32_cache import TRAIN_FILES, convert
from fklit.data.unpickle import UnsafePickleError


def module(folder, **options):
    data = ImageNet32DataModule(str(folder), 4, **options)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize("npz", [False, True], ids=["pickle", "npz"])
def test_pixels_and_labels_are_those_of_the_files(tmp_path, npz):
    pixels, labels = write_imagenet32(tmp_path, npz=npz)
    data = module(tmp_path, augment=False)
    assert len(data.train_images.labels) == 32 and len(data.test_images.labels) == 4
    assert np.array_equal(data.train_images.labels, labels)
    order = np.random.default_rng(0).permutation(32)
    assert np.array_equal(data.train_images.read(order), pixels[order])
    batch = next(iter(data.train_dataloader()))
    expected = (pixels[batch["index"]] / 255 - np.array(imagenet32.MEAN)[:, None, None]) / (
        1.5 * np.array([0.229, 0.224, 0.225])
    )[:, None, None]
    assert batch["x"].shape == (4, 3, 32, 32) and np.abs(batch["x"].numpy() - expected).max() < 1e-5
    assert np.array_equal(batch["y"], labels[batch["index"]])
    assert [len(b["y"]) for b in data.val_dataloader()] == [4]


def test_red_comes_first_line_by_line(tmp_path):
    write_imagenet32(tmp_path)
    row = np.arange(3072, dtype=np.uint32).astype(np.uint8)
    content = {"data": row[None], "labels": [1000]}
    (tmp_path / "val_data").write_bytes(pickle.dumps(content))
    data = module(tmp_path)
    image = data.test_images.read(np.array([0]))[0]
    assert image[0, 0, 1] == 1 and image[0, 1, 0] == 32 and image[1, 0, 0] == 1024 % 256 and image[2, 31, 31] == 255
    assert data.test_images.labels.tolist() == [999]


def test_the_folders_of_the_archives_are_found(tmp_path):
    write_imagenet32(tmp_path / "Imagenet32_train")
    (tmp_path / "Imagenet32_val").mkdir()
    (tmp_path / "Imagenet32_train" / "val_data").rename(tmp_path / "Imagenet32_val" / "val_data")
    assert len(module(tmp_path).test_images.labels) == 4


def test_label_orders():
    classes = imagenet32_classes()
    assert len(classes) == len({synset for synset, _ in classes}) == 1000
    assert classes[:3] == [("n02119789", "kit_fox"), ("n02100735", "English_setter"), ("n02110185", "Siberian_husky")]
    assert label_map("authors").tolist() == list(range(1000))
    wordnet = label_map("wordnet")
    assert sorted(wordnet) == list(range(1000))
    place = {name: int(wordnet[number]) for number, (_, name) in enumerate(classes)}
    # As in torchvision's pretrained classifiers.
    assert (place["tench"], place["goldfish"], place["kit_fox"], place["toilet_tissue"]) == (0, 1, 278, 999)


def test_labels_are_remapped(tmp_path):
    _, labels = write_imagenet32(tmp_path)
    assert np.array_equal(module(tmp_path, label_order="wordnet").train_images.labels, label_map("wordnet")[labels])
    with pytest.raises(ValueError, match="expected label_order 'authors' or 'wordnet', got 'sorted'"):
        ImageNet32DataModule(str(tmp_path), label_order="sorted")


def test_conversion_happens_once_and_the_official_files_may_go(tmp_path):
    pixels, _ = write_imagenet32(tmp_path / "official")
    cache = tmp_path / "cache"
    assert convert(tmp_path / "official", cache) == [*TRAIN_FILES, "val_data"]
    assert convert(tmp_path / "official", cache) == []
    for path in (tmp_path / "official").iterdir():
        path.unlink()
    data = module(tmp_path / "official", cache_dir=str(cache))
    assert np.array_equal(data.train_images.read(np.arange(32)), pixels)


def test_an_interrupted_conversion_goes_on_and_leaves_no_half_file(tmp_path, monkeypatch):
    pixels, _ = write_imagenet32(tmp_path)
    save, calls = np.save, []

    def interrupted(file, array):
        calls.append(1)
        if len(calls) == 6:  # the labels of the third batch
            file.write(b"half")
            raise KeyboardInterrupt
        save(file, array)

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path)
    names = {path.name for path in (tmp_path / "mmap").iterdir()}
    assert "train_data_batch_2.json" in names and not any("batch_3" in n and "images" not in n for n in names)
    with pytest.raises(FileNotFoundError, match=r"expected converted files, .* without train_data_batch_3, "):
        ImageNet32DataModule(str(tmp_path)).setup("fit")
    monkeypatch.undo()
    assert convert(tmp_path) == [*TRAIN_FILES[2:], "val_data"]
    assert np.array_equal(module(tmp_path).train_images.read(np.arange(32)), pixels)


def test_a_changed_official_file_is_converted_again(tmp_path):
    write_imagenet32(tmp_path)
    convert(tmp_path)
    (tmp_path / "val_data").write_bytes(pickle.dumps({"data": rows(7, 1), "labels": [1] * 7}))
    assert convert(tmp_path) == ["val_data"]
    assert len(module(tmp_path).test_images.labels) == 7


def test_workers_get_names_of_files_and_not_the_pixels(tmp_path):
    write_imagenet32(tmp_path, sizes=(60,) * 11)
    images = module(tmp_path).train_images
    images.read(np.arange(600))
    sent = pickle.dumps(images)
    assert len(sent) < 20_000
    assert np.array_equal(pickle.loads(sent).read(np.arange(600)), images.read(np.arange(600)))
    assert isinstance(images._map(0), np.memmap)


def test_augmentation_is_reproducible(tmp_path):
    write_imagenet32(tmp_path)
    data = module(tmp_path, seed=3)
    batches = [next(iter(module(tmp_path, seed=3).train_dataloader()))["x"] for _ in range(2)]
    assert (batches[0] == batches[1]).all()
    plain = ImageDataset(data.train_images, data.normalization())[Draw(0, np.arange(32))]["x"]
    varied = ImageDataset(data.train_images, data.normalization(), augmentation=data.augmentation())
    assert (varied[Draw(0, np.arange(32))]["x"] != plain).any()


def test_missing_files_are_named(tmp_path):
    write_imagenet32(tmp_path)
    for name in ("train_data_batch_4", "val_data"):
        (tmp_path / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected the official .* without train_data_batch_4, val_data; put them there"
    ):
        ImageNet32DataModule(str(tmp_path)).prepare_data()
    with pytest.raises(
        FileNotFoundError, match=r"expected converted files, .* without train_data_batch_1, train_data_batch_2, .*; run"
    ):
        ImageNet32DataModule(str(tmp_path)).setup("fit")


@pytest.mark.parametrize("npz", [False, True], ids=["pickle", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named(tmp_path, npz, share):
    write_imagenet32(tmp_path, npz=npz)
    path = tmp_path / f"train_data_batch_7{'.npz' if npz else ''}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(
        ValueError, match=rf"{re.escape(path.name)}, which is truncated or another .*; fetch it again\."
    ) as caught:
        ImageNet32DataModule(str(tmp_path)).prepare_data()
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_member_is_named(tmp_path):
    write_imagenet32(tmp_path, npz=True)
    path = tmp_path / "train_data_batch_7.npz"
    content = bytearray(path.read_bytes())
    content[3000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"expected an \.npz archive, got .*train_data_batch_7\.npz, which is truncated or another .*CRC",
    ):
        ImageNet32DataModule(str(tmp_path)).prepare_data()


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_payload_is_refused_and_not_run(tmp_path):
    write_imagenet32(tmp_path)
    (tmp_path / "train_data_batch_2").write_bytes(pickle.dumps({"data": Payload(tmp_path / "target"), "labels": [1]}))
    with pytest.raises(
        UnsafePickleError, match=r"expected arrays only, got \w+\.system in .*train_data_batch_2, which no batch"
    ):
        ImageNet32DataModule(str(tmp_path)).prepare_data()
    boxed = np.empty(2, dtype=object)
    boxed[0] = Payload(tmp_path / "target")
    (tmp_path / "train_data_batch_2").unlink()
    np.savez(tmp_path / "train_data_batch_2.npz", data=boxed, labels=[1, 2], allow_pickle=True)
    with pytest.raises(ValueError, match=r"train_data_batch_2\.npz, .*Object arrays cannot be loaded"):
        ImageNet32DataModule(str(tmp_path)).prepare_data()
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": rows(2, 0), "labels": [1, 0]}, "labels from 1 to 1000, got 0 for image 1 of .*3;"),
        ({"data": rows(2, 0), "labels": [1001, 5]}, "labels from 1 to 1000, got 1001 for image 0 of .*3;"),
        ({"data": rows(2, 0), "labels": [1, 2, 3]}, "a label for each image, got 3 for 2 in .*3;"),
        ({"data": rows(2, 0)[:0], "labels": np.empty(0, int)}, "a label for each image, got 0 for 0 in .*3;"),
        ({"data": rows(2, 0), "labels": [0.5, 1.0]}, "'labels' as a list of integers, got something else in .*3;"),
        ({"data": rows(2, 0), "labels": [[1], [1, 2]]}, "'labels' as a list of integers, got something else in .*3;"),
        ({"data": rows(2, 0), "labels": None}, "'labels' as a list of integers, got something else in .*3;"),
        ({"data": rows(2, 0)[:, :768], "labels": [1, 2]}, r"'data' as uint8 \(n, 3072\), got uint8 \(2, 768\) in .*3;"),
        (
            {"data": rows(2, 0).astype(np.float32), "labels": [1, 2]},
            r"'data' as uint8 \(n, 3072\), got float32 \(2, 3072\) in .*3;",
        ),
        ({"data": [1, 2], "labels": [1, 2]}, r"'data' as uint8 \(n, 3072\), got list in .*3;"),
        ({"data": rows(2, 0)}, r"'labels' in .*3, got \['data'\];"),
        ([rows(2, 0)], "a dictionary in .*3, got a list;"),
    ],
)
def test_wrong_contents(tmp_path, content, message):
    write_imagenet32(tmp_path)
    (tmp_path / "train_data_batch_3").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"expected {message} give an official batch file"):
        ImageNet32DataModule(str(tmp_path)).prepare_data()


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_damaged_converted_file_is_named(tmp_path, part):
    write_imagenet32(tmp_path)
    convert(tmp_path)
    path = tmp_path / "mmap" / f"train_data_batch_1.{part}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=rf"batch_1\.{part}\.npy, which is damaged .*; delete it, and it is converted anew"
    ):
        ImageNet32DataModule(str(tmp_path)).setup("fit")
    np.save(path, np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match=rf"batch_1\.{part}\.npy; delete it, and it is converted anew"):
        ImageNet32DataModule(str(tmp_path)).setup("fit")
    path.unlink()
    assert convert(tmp_path) == ["train_data_batch_1"]


def test_a_payload_in_a_converted_file_is_not_run(tmp_path):
    write_imagenet32(tmp_path)
    convert(tmp_path)
    boxed = np.empty(3, dtype=object)
    boxed[0] = Payload(tmp_path / "target")
    np.save(tmp_path / "mmap" / "train_data_batch_1.labels.npy", boxed, allow_pickle=True)
    with pytest.raises(ValueError, match=r"batch_1\.labels\.npy, which is damaged .*Python objects"):
        ImageNet32DataModule(str(tmp_path)).setup("fit")
    assert not (tmp_path / "target").exists()


def test_the_commands(tmp_path, capsys):
    write_imagenet32(tmp_path)
    assert main(["verify", "imagenet32", str(tmp_path)]) == 1  # tiny files have too few images
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and all(line.startswith("wrong") for line in lines)
    assert re.search(r"train_data_batch_10: sha256 [0-9a-f]{64}; expected 128123 images, got 5", lines[9])
    (tmp_path / "val_data").unlink()
    (tmp_path / "train_data_batch_1").write_bytes(b"")
    main(["verify", "imagenet32", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("missing val_data: neither") and "which is truncated" in lines[0]
    assert main(["convert", "imagenet32", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("fklit: expected the official ImageNet32 files, got ")
    write_imagenet32(tmp_path)
    assert main(["convert", "imagenet32", str(tmp_path), "--cache_dir", str(tmp_path / "c")]) == 0
    assert capsys.readouterr().out.startswith("converted train_data_batch_1, ")
    assert main(["convert", "imagenet32", str(tmp_path), "--cache_dir", str(tmp_path / "c")]) == 0
    assert capsys.readouterr().out == "everything was converted before\n"
    assert json.loads((tmp_path / "c" / "val_data.json").read_text())["images"] == 4


def test_verify_accepts_complete_files(tmp_path, capsys, monkeypatch):
    from fklit.data import verify

    write_imagenet32(tmp_path)
    sizes = dict(zip(verify.IMAGENET32_IMAGES, (3,) * 9 + (5, 4), strict=True))
    assert sum(verify.IMAGENET32_IMAGES.values()) == 1_281_167 + 50_000
    monkeypatch.setattr(verify, "IMAGENET32_IMAGES", sizes)
    assert main(["verify", "imagenet32", str(tmp_path)]) == 0
    assert "3 images, labels 1 to 1000" in capsys.readouterr().out


def test_python_m(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fklit.data", "verify", "imagenet32", str(tmp_path)])
    with pytest.raises(SystemExit, match="1"), pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("fklit.data.__main__", run_name="__main__")
    assert capsys.readouterr().out.count("missing") == 11
