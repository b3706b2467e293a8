"""Emoji as 32x32 color images with categories: train on one art style, test on the other.

A stand-in for natural images where none can be downloaded, and a test of generalization from one artist to another;
it is no ImageNet. The art comes from the archives that :mod:`fklit.emoji.art` fetches; see there for the licenses.
"""

import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fklit.atomic import write_atomically
from fklit.data.image_batches import FlipAndCrop, ImagesInMemory, Normalization, Pixels, Rows
from fklit.data.image_module import ImageDataModule
from fklit.emoji.art import SHA256, STYLES, VERSION, Style

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
        pixels: On white, uint8 ``(n, 3, 32, 32)``.
        categories: Place in ``CATEGORIES``, int64 ``(n,)``.
        skin_tone: Whether the emoji is another one in another skin tone, bool ``(n,)``.
    """

    pixels: Pixels
    categories: Rows
    skin_tone: "np.typing.NDArray[np.bool_]"


def archive_path(data_dir: Path, style: Style) -> Path:
    """Where the npm archive of a style is."""
    return data_dir / f"emoji-datasource-{style}-{VERSION}.tgz"


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
            f"{archive} is truncated or not an emoji-datasource package ({error}); delete it and fetch it again."
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
    """Writes the tiles of a style below ``data_dir``, once (about 12 MB).

    Raises:
        FileNotFoundError: Neither the tiles nor the archive are there; the message has the command that fetches it.
        ValueError: The archive is not the pinned one.
    """
    root = Path(data_dir).expanduser()
    target, archive = tiles_path(root, style), archive_path(root, style)
    if target.is_file():
        return
    if not archive.is_file():
        raise FileNotFoundError(
            f"No {archive.name} in {root}: run `python -m fklit.data fetch emoji {root}` "
            "(it needs npm and a network, 136 MB once)."
        )
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256[style]:
        raise ValueError(f"{archive} has sha256 {digest}, expected {SHA256[style]}: delete it and fetch it again.")
    tiles = extract_tiles(archive, style)
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(target) as out:
        np.savez(out, pixels=tiles.pixels, categories=tiles.categories, skin_tone=tiles.skin_tone)


def load_tiles(data_dir: str | Path, style: Style) -> Tiles:
    """Reads the tiles that :func:`prepare_tiles` wrote.

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
            f"No emoji tiles at {path}; call prepare_data() (Lightning does) to write it."
        ) from None
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and it is made anew.") from None
    return tiles


class EmojiTilesDataModule(ImageDataModule):
    """Emoji of ten categories, 32x32 RGB on white: training in one art style, test in the other.

    1,911 emoji in each style, the same ones: ``index`` names the same emoji in both. The largest category (People &
    Body) has 386 of them, the smallest (Component) 5; with the skin-tone variants, all of People & Body, there are
    3,786 and 2,261 of them in that category: then a majority vote is right for 60 percent.

    Args:
        data_dir: Where ``python -m fklit.data fetch emoji`` put the archives.
        batch_size: Images in a batch of one process.
        train_style: The art style to train on; the other one is tested on.
        skin_tones: Add the skin-tone variants.
        augment: Mirror and shift the training images, as for CIFAR and ImageNet32.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images (of the training style) set apart to validate on; with 0 the test images are validated
            on.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number or the style is out of its range, or an archive is not the pinned one (``prepare_data``).
        FileNotFoundError: The archives have not been fetched (``prepare_data``).
    """

    num_classes = len(CATEGORIES)
    image_shape = (3, SIZE, SIZE)
    class_names = CATEGORIES

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        train_style: Style = "google",
        skin_tones: bool = False,
        augment: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        holdout: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size, num_train=num_train, num_test=num_test, holdout=holdout, seed=seed, num_workers=num_workers
        )
        if train_style not in STYLES:
            raise ValueError(f"train_style={train_style!r} was given; give one of {', '.join(STYLES)}.")
        self.data_dir = Path(data_dir).expanduser()
        self.train_style: Style = train_style
        self.skin_tones = skin_tones
        self.augment = augment

    def prepare_data(self) -> None:
        """Makes the tiles of both styles from the archives, once."""
        for style in STYLES:
            prepare_tiles(self.data_dir, style)

    def load(self, split: Literal["train", "test"]) -> ImagesInMemory:
        """The images of a style, in memory."""
        other = next(style for style in STYLES if style != self.train_style)
        tiles = load_tiles(self.data_dir, self.train_style if split == "train" else other)
        rows = np.arange(len(tiles.categories)) if self.skin_tones else np.flatnonzero(~tiles.skin_tone)
        images = ImagesInMemory(tiles.pixels[rows], tiles.categories[rows])
        if split == "train":
            scaled = images.pixels.astype(np.float64) / 255.0
            mean, std = scaled.mean(axis=(0, 2, 3)), scaled.std(axis=(0, 2, 3))
            # 1.5 times the standard deviation, as the authors normalize CIFAR and ImageNet32.
            self._normalization = Normalization(tuple(map(float, mean)), tuple(float(1.5 * s) for s in std))
        return images

    def normalization(self) -> Normalization:
        """Mean and 1.5 times the standard deviation of the training style."""
        return self._normalization

    def augmentation(self) -> FlipAndCrop | None:
        """Mirrored half of the time, white around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2, fill=255) if self.augment else None
