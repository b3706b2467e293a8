"""The digits: the shipped file, its split, and an actionable error for each kind of bad file."""

import gzip
import hashlib
import shutil
from importlib.resources import files

import numpy as np
import pytest

from fklit.data import DigitsDataModule
from fklit.data.digits import read_digits


def ready(data):
    data.setup("fit")
    return data


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
    # The split is fixed: another one would mix training and test images of earlier runs.
    assert data.test_images.labels[:12].tolist() == [3, 9, 2, 4, 9, 3, 9, 9, 6, 5, 0, 8]
    batch = next(iter(data.test_dataloader()))
    assert batch["x"].shape == (360, 1, 8, 8) and float(batch["x"].max()) == 1 and float(batch["x"].min()) == 0


def test_digits_from_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected digits\.csv\.gz or optdigits\.tes in .*copy that ships"):
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
    plain.write_bytes(b"".join(text.splitlines(keepends=True)[:12]))
    few = ready(DigitsDataModule(str(tmp_path)))  # another number is split in the same proportion
    assert len(few.train_images.labels) == 9 and len(few.test_images.labels) == 3
    for bad, message in [
        (text[:-20], "which is truncated or another"),
        (b"", r"expected 65 integers a line, got another table \(0,\)"),
        (b"1,2\n3,4\n", r"expected 65 integers a line, got another table \(2, 2\)"),
        (text.replace(b"16", b"17"), "expected pixels from 0 to 16 and labels from 0 to 9"),
        (text.replace(b"16", b"15.5"), "expected 65 integers a line"),
        (b"\xff", "which is truncated or another"),
    ]:
        plain.write_bytes(bad)
        with pytest.raises(ValueError, match=message) as caught:
            ready(DigitsDataModule(str(tmp_path)))
        assert str(plain) in str(caught.value)
