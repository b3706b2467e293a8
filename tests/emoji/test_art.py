"""The fetch: only pinned archives, all sprites or none, and actionable errors when something is missing."""

import hashlib
import io
import json
import re
import tarfile

import numpy as np
import pytest
from fake_art import write_fake_art
from PIL import Image

from fklit.data.__main__ import main
from fklit.emoji import art as emoji_art
from fklit.emoji.art import STYLES, VERSION, extract_art, load_art
from fklit.emoji.objects import OBJECTS


def write_archive(path, style):
    """An npm archive with the layout of emoji-datasource; each object a square of its own gray."""
    entries = []
    with tarfile.open(path, "w:gz") as tar:
        for number, thing in enumerate(OBJECTS):
            stream = io.BytesIO()
            Image.new("RGBA", (8, 8), (number, number, number, 255)).save(stream, "PNG")
            entries.append({"short_names": [thing.short_name, "other"], "image": f"{number:04x}.png"})
            add(tar, f"package/img/{style}/64/{number:04x}.png", stream.getvalue())
        add(tar, "package/emoji.json", json.dumps(entries).encode())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def archives(tmp_path, monkeypatch):
    for style in STYLES:
        digest = write_archive(tmp_path / f"emoji-datasource-{style}-{VERSION}.tgz", style)
        monkeypatch.setitem(emoji_art.SHA256, style, digest)
    return tmp_path


def test_archives_that_are_there_become_sprites(archives, monkeypatch):
    monkeypatch.setattr(emoji_art.shutil, "which", lambda name: None)
    assert main(["fetch", "emoji", str(archives)]) == 0
    art = load_art(archives)
    assert len(art.sprites) == 2 * len(OBJECTS)
    assert art.sprites[OBJECTS[3].name, "twitter"][0, 0].tolist() == [3, 3, 3, 255]
    assert main(["fetch", "emoji", str(archives)]) == 0  # again, over what is there
    assert {path.name for path in archives.iterdir() if path.is_dir()} == set(STYLES)


def test_another_archive_is_refused_and_leaves_nothing(tmp_path):
    archive = tmp_path / "other.tgz"
    write_archive(archive, "google")
    with pytest.raises(ValueError, match=r"expected sha256 fb5fd131.*, got \w+ of .*; delete it and fetch it again"):
        extract_art(archive, "google", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.tgz"]


def test_without_npm_the_error_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(emoji_art.shutil, "which", lambda name: None)
    assert main(["fetch", "emoji", str(tmp_path)]) == 1
    assert re.search(r"fklit: expected npm on the path .*, got none; install Node\.js", capsys.readouterr().err)


def test_npm_that_fails_is_quoted(tmp_path, monkeypatch, capsys):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(emoji_art.shutil, "which", lambda name: str(npm))
    assert main(["fetch", "emoji", str(tmp_path / "data")]) == 1
    assert "from npm pack emoji-datasource-google@16.0.0, got 'no network'; check" in capsys.readouterr().err


def test_missing_art_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m fklit\.data fetch emoji"):
        load_art(tmp_path)


def test_sprites_are_scaled_with_their_transparency(tmp_path):
    art = load_art(write_fake_art(tmp_path))
    sprite = art.sprite("red heart", "google", 28)
    assert sprite.shape == (28, 28, 4) and sprite.dtype == np.uint8
    assert sprite[0, 0, 3] == 0 and sprite[14, 14, 3] == 255
    assert art.sprite("red heart", "google", 28) is sprite
