"""ImageNet 32x32 (Chrabaszcz, Loshchilov, Hutter 2017, arXiv:1707.08819) from the official batch files.

The files (pickles or ``.npz``) cannot be mapped into memory, so each is converted once to ``.npy`` files, which all
processes and workers of a machine then share through the page cache.
"""

import json
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Literal

import numpy as np

from fklit.atomic import remove_leftovers, write_atomically
from fklit.data.image_batches import FlipAndCrop, Normalization, Pixels, Rows
from fklit.data.image_module import ImageDataModule
from fklit.data.planar_batches import ROW, read_batch

LabelOrder = Literal["authors", "wordnet"]
TRAIN_FILES = tuple(f"train_data_batch_{number}" for number in range(1, 11))
TEST_FILES = ("val_data",)
NUM_CLASSES = 1000
# Where the official archives put their files, beside the folder itself.
_FOLDERS = ("", "Imagenet32_train", "Imagenet32_train_npz", "Imagenet32_val", "Imagenet32_val_npz")
MEAN = (0.485, 0.456, 0.406)
STD = (1.5 * 0.229, 1.5 * 0.224, 1.5 * 0.225)


def imagenet32_classes() -> list[tuple[str, str]]:
    """WordNet id and name of every class, in the authors' order (place 0 is label 1 of the files)."""
    text = (package_files("fklit.data") / "shipped" / "imagenet32_classes.txt").read_text("utf-8")
    return [(synset, name) for synset, name in (line.split() for line in text.splitlines())]


def label_map(order: LabelOrder) -> Rows:
    """What each of the authors' classes (0 to 999) is called in another order, int64 ``(1000,)``.

    ``"authors"`` changes nothing: class 0 is n02119789 (kit fox), 1 is n02100735 (English setter). ``"wordnet"`` sorts
    by WordNet id, which is the order of torchvision, timm and most pretrained classifiers: 0 is n01440764 (tench).
    """
    if order == "authors":
        return np.arange(NUM_CLASSES)
    synsets = [synset for synset, _ in imagenet32_classes()]
    return np.argsort(np.argsort(np.array(synsets))).astype(np.int64)


def find_batch(data_dir: Path, name: str) -> Path | None:
    """The official file ``name`` (pickle, or ``.npz``) in ``data_dir`` or the folders of the archives."""
    candidates = (data_dir / folder / f"{name}{ending}" for folder in _FOLDERS for ending in ("", ".npz"))
    return next((path for path in candidates if path.is_file()), None)


def convert(data_dir: str | Path, cache_dir: str | Path | None = None) -> list[str]:
    """Converts the official files of a folder to files that can be mapped into memory.

    A file that is already converted is passed over, so an interrupted conversion goes on where it stopped. Every file
    appears under its name only when it is whole. One official file (0.4 GB) is in memory at a time.

    Args:
        data_dir: Folder of the official files.
        cache_dir: Where the converted files go, 3.9 GB; None for ``data_dir/mmap``.

    Returns:
        Names of the batches that were converted now.

    Raises:
        FileNotFoundError: A batch is neither there nor converted; the message names all that are missing.
        ValueError: A file is corrupt.
    """
    root, cache = _folders(data_dir, cache_dir)
    names = (*TRAIN_FILES, *TEST_FILES)
    sources = {name: find_batch(root, name) for name in names}
    done = {name: _is_converted(cache, name, sources[name]) for name in names}
    missing = [name for name in names if sources[name] is None and not done[name]]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} missing in {root}; put the official ImageNet32 files there, pickles or .npz "
            "(data/README.md of the project says where they come from)."
        )
    remove_leftovers(cache)
    converted = []
    for name, source in sources.items():
        if source is not None and not done[name]:
            batch = read_batch(source, first=1, num_classes=NUM_CLASSES)
            cache.mkdir(parents=True, exist_ok=True)
            with write_atomically(cache / f"{name}.images.npy") as file:
                np.save(file, batch.data)
            with write_atomically(cache / f"{name}.labels.npy") as file:
                np.save(file, batch.labels.astype(np.int16))
            about = {"source": source.name, "bytes": source.stat().st_size, "images": len(batch.labels)}
            with write_atomically(cache / f"{name}.json") as file:  # last: it says that the others are whole
                file.write(json.dumps(about).encode())
            converted.append(name)
    return converted


def _folders(data_dir: str | Path, cache_dir: str | Path | None) -> tuple[Path, Path]:
    root = Path(data_dir).expanduser()
    return root, root / "mmap" if cache_dir is None else Path(cache_dir).expanduser()


def _is_converted(cache: Path, name: str, source: Path | None) -> bool:
    try:
        about = json.loads((cache / f"{name}.json").read_text())
        whole = all((cache / f"{name}.{part}.npy").is_file() for part in ("images", "labels"))
        # The official file may be deleted after the conversion; if it is there, it must be the one converted.
        same = source is None or (about["source"], about["bytes"]) == (source.name, source.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return whole and same


class MappedImages:
    """Converted batches, one after the other, mapped into memory when first read.

    Args:
        cache: Folder of the converted files.
        names: The batches.
        relabeling: What each of the authors' classes is called, see :func:`label_map`.

    Raises:
        ValueError: A converted file is damaged.
    """

    def __init__(self, cache: Path, names: Sequence[str], relabeling: Rows) -> None:
        self.cache = cache
        self.names = tuple(names)
        labels = [np.asarray(self._open(f"{name}.labels.npy", 1)) for name in names]
        self.ends = np.cumsum([len(part) for part in labels])
        self.labels: Rows = relabeling[np.concatenate(labels)]
        self._maps: dict[int, Pixels] = {}
        for number in range(len(names)):
            self._map(number)  # a damaged file is refused before training starts

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}  # pickling a map would send its 0.4 GB to every worker

    def _open(self, name: str, axes: int) -> np.ndarray:
        path = self.cache / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it, and it is converted anew.") from None
        if array.ndim != axes:
            raise ValueError(f"{path} has shape {array.shape}; delete it, and it is converted anew.")
        return np.asanyarray(array)

    def _map(self, number: int) -> Pixels:
        if number not in self._maps:
            array = self._open(f"{self.names[number]}.images.npy", 2)
            count = int(self.ends[number] - (self.ends[number - 1] if number else 0))
            if array.shape != (count, ROW) or array.dtype != np.uint8:
                raise ValueError(
                    f"{self.cache / self.names[number]}.images.npy holds {array.dtype} {array.shape} and not "
                    f"uint8 ({count}, {ROW}); delete it, and it is converted anew."
                )
            self._maps[number] = array
        return self._maps[number]

    def read(self, rows: Rows) -> Pixels:
        """Pixels of some rows, uint8 ``(N, 3, 32, 32)``."""
        pixels = np.empty((len(rows), ROW), dtype=np.uint8)
        batches = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(batches):
            chosen = batches == number
            start = self.ends[number - 1] if number else 0
            pixels[chosen] = self._map(int(number))[rows[chosen] - start]
        return pixels.reshape(-1, 3, 32, 32)


class ImageNet32DataModule(ImageDataModule):
    """ImageNet at 32x32: 1,281,167 training and 50,000 validation images of 1,000 classes.

    The official files are converted once (``prepare_data``, or ``python -m fklit.data convert imagenet32 DIR``), which
    takes another 3.9 GB of disk; the official ones may be deleted then. Checksums are not looked at here but by
    ``python -m fklit.data verify imagenet32 DIR``. The official validation images are the test images of this module.

    Args:
        data_dir: Folder of the official files ``train_data_batch_1`` to ``_10`` and ``val_data``, pickles or ``.npz``,
            or of the folders the archives unpack to.
        batch_size: Images in a batch of one process.
        cache_dir: Where the converted files go; None for ``data_dir/mmap``.
        label_order: ``"authors"``, labels 1..1000 of the files as 0..999, or ``"wordnet"``, the order of torchvision
            and most pretrained classifiers, see :func:`label_map`.
        augment: Mirror and shift the training images, as published.
        num_train: Use this many training images, a fixed random subset; None for all.
        num_test: Use this many test images, a fixed random subset; None for all.
        holdout: Training images set apart to validate on; with 0 the test images are validated on, as published.
        seed: Of the order and the augmentation.
        num_workers: Processes that read images.

    Raises:
        ValueError: A number is out of its range, or a file is corrupt (in ``prepare_data`` or ``setup``).
        FileNotFoundError: A file is missing; the message names it (in ``prepare_data``).
    """

    num_classes = NUM_CLASSES
    image_shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str,
        batch_size: int = 256,
        *,
        cache_dir: str | None = None,
        label_order: LabelOrder = "authors",
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
        if label_order not in ("authors", "wordnet"):
            raise ValueError(f"label_order={label_order!r} was given; give 'authors' or 'wordnet'.")
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self.label_order: LabelOrder = label_order
        self.augment = augment

    def prepare_data(self) -> None:
        """Converts what is not converted yet, on one process of every machine."""
        convert(self.data_dir, self.cache_dir)

    def load(self, split: Literal["train", "test"]) -> MappedImages:
        """The converted images of a split."""
        root, cache = _folders(self.data_dir, self.cache_dir)
        names = TRAIN_FILES if split == "train" else TEST_FILES
        missing = [name for name in names if not _is_converted(cache, name, find_batch(root, name))]
        if missing:
            raise FileNotFoundError(
                f"{', '.join(missing)} not converted in {cache}; run `python -m fklit.data convert imagenet32 {root}`."
            )
        return MappedImages(cache, names, label_map(self.label_order))

    def normalization(self) -> Normalization:
        """Mean and 1.5 times the standard deviation of ImageNet, as published with the homeostatic loss."""
        return Normalization(MEAN, STD)

    def augmentation(self) -> FlipAndCrop | None:
        """As published: mirrored half of the time, zeros around to 36x36, any 32x32 of it."""
        return FlipAndCrop(padding=2) if self.augment else None
