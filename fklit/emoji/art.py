"""The emoji art: fetched from two npm packages, checked against pinned checksums, kept as small sprites.

`python -m fklit.data fetch emoji` runs `npm pack` for both packages and writes one PNG an object and style below
`data/emoji`. The Google art (Noto) is under the Apache License 2.0, the Twitter art (Twemoji) under CC BY 4.0,
copyright Twitter, Inc and other contributors: keep the attribution with anything made from it.
"""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from fklit.data.checksums import Finding, checksum, compare
from fklit.emoji.objects import OBJECTS

Style = Literal["google", "twitter"]
STYLES: tuple[Style, ...] = get_args(Style)
VERSION = "16.0.0"
SHA256: dict[Style, str] = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}
FETCH_HINT = "run `python -m fklit.data fetch emoji {}` (it needs npm and a network, 136 MB once)"


@dataclass(frozen=True)
class EmojiArt:
    """Sprites of every object in every style.

    Attributes:
        sprites: RGBA images, square, uint8 `(S, S, 4)`, by `(object name, style)`.
    """

    sprites: Mapping[tuple[str, Style], npt.NDArray[np.uint8]]
    _resized: dict[tuple[str, Style, int], npt.NDArray[np.uint8]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def sprite(self, name: str, style: Style, size: int) -> npt.NDArray[np.uint8]:
        """The sprite scaled to `size` pixels, uint8 `(size, size, 4)`; scaled once and remembered."""
        key = (name, style, size)
        if key not in self._resized:
            picture = Image.fromarray(self.sprites[name, style]).resize((size, size), Image.Resampling.LANCZOS)
            self._resized[key] = np.asarray(picture)
        return self._resized[key]


def archive_path(data_dir: Path, style: Style) -> Path:
    """Where the npm archive of a style is."""
    return data_dir / f"emoji-datasource-{style}-{VERSION}.tgz"


def verify_art(data_dir: Path) -> Iterator[Finding]:
    """Compares the npm archives with the pinned checksums.

    Args:
        data_dir: Where `fetch` put them.
    """
    for style in STYLES:
        yield from compare(data_dir, {archive_path(data_dir, style).name: SHA256[style]}, "sha256")


def check_archive(archive: Path, style: Style) -> None:
    """Refuses another archive than the pinned one.

    Raises:
        ValueError: Its checksum is another one.
    """
    digest = checksum(archive, "sha256")
    if digest != SHA256[style]:
        raise ValueError(f"expected sha256 {SHA256[style]}, got {digest} of {archive}; delete it and fetch it again.")


def sprite_path(data_dir: Path, name: str, style: Style) -> Path:
    """Where the sprite of an object is kept, for example `data/emoji/google/red_heart.png`."""
    return data_dir / style / f"{name.replace(' ', '_')}.png"


def load_art(data_dir: str | Path = "data/emoji") -> EmojiArt:
    """Read the sprites.

    Raises:
        FileNotFoundError: One is missing; the message has the command that fetches them.
    """
    root = Path(data_dir)
    sprites: dict[tuple[str, Style], npt.NDArray[np.uint8]] = {}
    for style in STYLES:
        for thing in OBJECTS:
            path = sprite_path(root, thing.name, style)
            if not path.is_file():
                raise FileNotFoundError(f"expected emoji art at {path}, got no such file; {FETCH_HINT.format(root)}.")
            with Image.open(path) as picture:
                sprites[thing.name, style] = np.asarray(picture.convert("RGBA"))
    return EmojiArt(sprites)


def extract_art(archive: Path, style: Style, data_dir: Path) -> None:
    """Write the sprites of one npm archive below `data_dir / style`; all of them or none.

    Raises:
        ValueError: The checksum of the archive is not the pinned one.
    """
    check_archive(archive, style)
    data_dir.mkdir(parents=True, exist_ok=True)
    wanted = {thing.short_name: thing.name for thing in OBJECTS}
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=f".{style}-") as scratch:
        staging = Path(scratch) / style
        staging.mkdir()
        with tarfile.open(archive) as tar:
            index = json.load(_member(tar, "package/emoji.json"))
            for entry in index:
                for short in entry["short_names"]:
                    if short in wanted:
                        data = _member(tar, f"package/img/{style}/64/{entry['image']}").read()
                        with Image.open(io.BytesIO(data)) as picture:
                            picture.convert("RGBA").save(staging / sprite_path(Path(), wanted[short], style).name)
        target = data_dir / style
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)


def _member(tar: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    stream = tar.extractfile(name)
    if stream is None:
        raise ValueError(f"expected a file {name} in an emoji-datasource package, got something else; fetch it again.")
    return stream  # type: ignore[return-value]


def fetch(data_dir: str | Path = "data/emoji") -> None:
    """Fetch both packages with `npm pack` (an archive already in `data_dir` is used) and write the sprites.

    Raises:
        RuntimeError: The program npm is missing or failed.
        ValueError: An archive is not the pinned one.
    """
    root = Path(data_dir)
    root.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        package, archive = f"emoji-datasource-{style}", archive_path(root, style)
        if not archive.is_file():
            npm = shutil.which("npm")
            if npm is None:
                raise RuntimeError(
                    "expected npm on the path (the emoji art comes from npm packages), got none; install Node.js."
                )
            print(f"fetching {package}@{VERSION} ...")
            with tempfile.TemporaryDirectory(dir=root, prefix=".npm-") as scratch:
                done = subprocess.run(
                    [npm, "pack", "--silent", f"{package}@{VERSION}"],
                    cwd=scratch,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                packed = Path(scratch) / archive.name
                if done.returncode != 0 or not packed.is_file():
                    raise RuntimeError(
                        f"expected {archive.name} from npm pack {package}@{VERSION}, got "
                        f"{done.stderr.strip() or done.stdout.strip()!r}; check the network and npm's registry."
                    )
                packed.rename(archive)
        extract_art(archive, style, root)
