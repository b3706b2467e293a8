"""Emoji as 32x32 color images with categories, extracted once from the archives of `fklit.emoji.art`."""

import io
import json
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fklit.atomic import write_atomically
from fklit.data.image_batches import Pixels, Rows
from fklit.emoji.art import FETCH_HINT, STYLES, Style, archive_path, check_archive

SIZE = 32
CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Component",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)


@dataclass(frozen=True)
class Tiles:
    """The emoji of one style, in the order of their code points; the same order in both styles.

    Attributes:
        pixels: On white, uint8 `(n, 3, 32, 32)`.
        categories: Place in `CATEGORIES`, int64 `(n,)`.
        skin_tone: Whether the emoji is another one in another skin tone, bool `(n,)`.
    """

    pixels: Pixels
    categories: Rows
    skin_tone: npt.NDArray[np.bool_]


def tiles_path(data_dir: Path, style: Style) -> Path:
    """Where the tiles of a style are kept."""
    return data_dir / "tiles" / f"{style}-{SIZE}.npz"


def extract_tiles(archive: Path, style: Style) -> Tiles:
    """Reads the tiles out of an npm archive.

    Every emoji that both styles have is put on white and scaled from 64 to 32 pixels by averaging, as ImageNet32 was.

    Raises:
        ValueError: The archive is truncated or is not an emoji-datasource package.
        FileNotFoundError: There is no such file.
    """
    pictures: dict[str, bytes] = {}
    folder = f"package/img/{style}/64/"
    index = b""
    try:
        with tarfile.open(archive, "r|gz") as tar:  # one pass over a compressed stream
            for member in tar:
                if member.name == "package/emoji.json" or member.name.startswith(folder):
                    stream = tar.extractfile(member)
                    content = b"" if stream is None else stream.read()
                    if member.name.startswith(folder):
                        pictures[member.name.removeprefix(folder)] = content
                    else:
                        index = content
        wanted = _list_emoji(json.loads(index))
        pixels = np.stack([_to_tile(pictures[name]) for name, _, _ in wanted])
        categories = np.array([CATEGORIES.index(category) for _, category, _ in wanted])
    except FileNotFoundError:
        raise
    except (tarfile.TarError, EOFError, OSError, KeyError, ValueError, zlib.error) as error:
        raise ValueError(
            f"expected an emoji-datasource package, got {archive}, which is truncated or another one ({error}); "
            "delete it and fetch it again."
        ) from None
    return Tiles(pixels, categories.astype(np.int64), np.array([toned for _, _, toned in wanted]))


def _list_emoji(entries: list[dict[str, object]]) -> list[tuple[str, str, bool]]:
    """File name, category and whether it is a skin-tone variant, of every emoji that both styles have."""
    found = []
    for entry in entries:
        variants = entry.get("skin_variations", {})
        assert isinstance(variants, dict)
        for picture, toned in ((entry, False), *((variant, True) for variant in variants.values())):
            if all(picture[f"has_img_{style}"] for style in STYLES):
                found.append((str(picture["image"]), str(entry["category"]), toned))
    return sorted(found)


def _to_tile(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as picture:
        art = picture.convert("RGBA")
    canvas = Image.new("RGBA", art.size, "white")
    canvas.alpha_composite(art)
    tile = canvas.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(tile).transpose(2, 0, 1))


def prepare_tiles(data_dir: str | Path, style: Style) -> None:
    """Writes the tiles of a style below `data_dir`, once (about 12 MB).

    Raises:
        FileNotFoundError: Neither the tiles nor the archive are there; the message has the command that fetches it.
        ValueError: The archive is not the pinned one.
    """
    root = Path(data_dir).expanduser()
    target, archive = tiles_path(root, style), archive_path(root, style)
    if target.is_file():
        return
    if not archive.is_file():
        raise FileNotFoundError(f"expected {archive.name} in {root}, got no such file; {FETCH_HINT.format(root)}.")
    check_archive(archive, style)
    tiles = extract_tiles(archive, style)
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(target) as out:
        np.savez(out, pixels=tiles.pixels, categories=tiles.categories, skin_tone=tiles.skin_tone)


def load_tiles(data_dir: str | Path, style: Style) -> Tiles:
    """Reads the tiles that `prepare_tiles` wrote.

    Raises:
        FileNotFoundError: They have not been written.
        ValueError: The file is damaged.
    """
    path = tiles_path(Path(data_dir).expanduser(), style)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            tiles = Tiles(content["pixels"], content["categories"], content["skin_tone"])
    except FileNotFoundError:
        raise FileNotFoundError(
            f"expected emoji tiles at {path}, got no such file; call prepare_data() (Lightning does) to write it."
        ) from None
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"expected emoji tiles, got {path}, which is damaged ({error}); delete it, and it is made anew."
        ) from None
    return tiles
