"""The emoji tiles: what is in them, both styles in one order, made once, and errors for what is missing."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fklit.data.__main__ import main
from fklit.emoji import EmojiTilesDataModule
from fklit.emoji import art as emoji_art
from fklit.emoji.art import STYLES, archive_path
from fklit.emoji.tiles import CATEGORIES, extract_tiles, load_tiles, tiles_path

COLORS = {"google": (255, 0, 0, 255), "twitter": (0, 0, 255, 128)}


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write_archives(folder, monkeypatch, *, one_style_only="0005.png"):
    """Twelve emoji, the last with two skin tones and the sixth in one style only, in the layout of emoji-datasource."""
    sums = {}
    for style in STYLES:
        entries = []
        with tarfile.open(archive_path(folder, style), "w:gz") as tar:

            def picture(name, tar=tar, style=style):
                stream = io.BytesIO()
                canvas = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
                canvas.paste(COLORS[style], (0, 0, 32, 64))  # the right half stays transparent
                canvas.save(stream, "PNG")
                if name != one_style_only or style == "google":
                    add(tar, f"package/img/{style}/64/{name}", stream.getvalue())
                here = name != one_style_only
                return {"image": name, "has_img_google": True, "has_img_twitter": here, "has_img_apple": True}

            for number in range(12):
                entry = {**picture(f"{11 - number:04x}.png"), "category": CATEGORIES[number % 10]}
                if number == 6:
                    entry["skin_variations"] = {tone: picture(f"0005-{tone}.png") for tone in ("1F3FB", "1F3FC")}
                entries.append(entry)
            add(tar, "package/emoji.json", json.dumps(entries).encode())
        sums[style] = hashlib.sha256(archive_path(folder, style).read_bytes()).hexdigest()
    monkeypatch.setattr(emoji_art, "SHA256", sums)


def ready(folder, **options):
    data = EmojiTilesDataModule(str(folder), 4, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def test_tiles_are_on_white_averaged_and_sorted(tmp_path, monkeypatch):
    write_archives(tmp_path, monkeypatch)
    google, twitter = (extract_tiles(archive_path(tmp_path, style), style) for style in STYLES)
    assert google.pixels.shape == (13, 3, 32, 32) and google.pixels.dtype == np.uint8
    for tiles, color in ((google, (255, 0, 0)), (twitter, (127, 127, 255))):
        assert np.abs(tiles.pixels[0, :, 3, 3].astype(int) - color).max() <= 1
        assert (tiles.pixels[:, :, :, 16:] == 255).all()
    # 0005.png is in one style only; 0000 is the last of the list, of category 11 % 10.
    names = [n for n in range(12) if n != 5]
    names[5:5] = [5, 5]  # its two skin tones sort into its place
    assert google.categories.tolist() == twitter.categories.tolist() == [(11 - n) % 10 for n in names]
    assert np.flatnonzero(google.skin_tone).tolist() == [5, 6]


def test_train_on_one_style_and_test_on_the_other(tmp_path, monkeypatch):
    write_archives(tmp_path, monkeypatch)
    data = ready(tmp_path, augment=False)
    assert len(data.train_rows) == len(data.test_rows) == 11
    assert np.array_equal(data.train_images.labels, data.test_images.labels)
    assert (data.train_images.pixels[:, 0, 0, 0] == 255).all() and (data.test_images.pixels[:, 2, 0, 0] == 255).all()
    swapped = ready(tmp_path, train_style="twitter", skin_tones=True)
    assert len(swapped.train_rows) == 13 and np.array_equal(swapped.test_images.pixels[0], data.train_images.pixels[0])
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (4, *data.image_shape)
    # Green is 0 in one half and 255 in the other: mean and standard deviation are a half.
    assert {round(float(v), 4) for v in batch["x"][:, 1].unique()} == {-0.6667, 0.6667}


def test_augmentation_pads_with_white(tmp_path, monkeypatch):
    write_archives(tmp_path, monkeypatch)
    data = ready(tmp_path)
    augmentation = data.augmentation()
    white = np.full((50, 3, 32, 32), 255, dtype=np.uint8)
    assert (augmentation(white, np.arange(50, dtype=np.uint64) << np.uint64(20)) == 255).all()
    assert ready(tmp_path, augment=False).augmentation() is None


def test_tiles_are_made_once_and_the_archives_may_go(tmp_path, monkeypatch):
    write_archives(tmp_path, monkeypatch)
    data = ready(tmp_path)
    for style in STYLES:
        archive_path(tmp_path, style).unlink()
    again = ready(tmp_path)
    assert np.array_equal(again.train_images.pixels, data.train_images.pixels)
    path = tiles_path(tmp_path, "google")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"google-32\.npz, which is damaged .*; delete it, and it is made anew"):
        load_tiles(tmp_path, "google")


def test_what_is_missing_or_wrong(tmp_path, monkeypatch, capsys):
    with pytest.raises(FileNotFoundError, match=r"expected emoji-datasource-google-16\.0\.0\.tgz in .*; run `python"):
        ready(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected emoji tiles at .*; call prepare_data\(\)"):
        EmojiTilesDataModule(str(tmp_path)).setup("fit")
    assert main(["verify", "emoji", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("missing ") == 2
    write_archives(tmp_path, monkeypatch)
    assert main(["verify", "emoji", str(tmp_path)]) == 0
    path = archive_path(tmp_path, "twitter")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"expected sha256 \w+, got \w+ of .*twitter-16\.0\.0\.tgz; delete it"):
        ready(tmp_path)
    assert main(["verify", "emoji", str(tmp_path)]) == 1
    with pytest.raises(ValueError, match=r"expected an emoji-datasource package, got .*tgz, which is truncated"):
        extract_tiles(path, "twitter")
    with pytest.raises(ValueError, match=r"expected an emoji-datasource package"):
        extract_tiles(archive_path(tmp_path, "google"), "twitter")
    with pytest.raises(ValueError, match="expected train_style 'google' or 'twitter', got 'apple'"):
        EmojiTilesDataModule(str(tmp_path), train_style="apple")
