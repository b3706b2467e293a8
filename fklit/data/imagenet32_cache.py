"""The official batch files of ImageNet32, converted once to files that can be mapped into memory.

The official files (pickles or `.npz`) cannot be mapped, so each is converted to `.npy` files, which all processes and
workers of a machine then share through the page cache.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fklit.atomic import remove_leftovers, write_atomically, write_json_atomically
from fklit.data.image_batches import Pixels, Rows
from fklit.data.planar_batches import ROW, read_batch

TRAIN_FILES = tuple(f"train_data_batch_{number}" for number in range(1, 11))
TEST_FILES = ("val_data",)
NUM_CLASSES = 1000
# Where the official archives put their files, beside the folder itself.
_FOLDERS = ("", "Imagenet32_train", "Imagenet32_train_npz", "Imagenet32_val", "Imagenet32_val_npz")


def find_batch(data_dir: Path, name: str) -> Path | None:
    """The official file `name` (pickle, or `.npz`) in `data_dir` or the folders of the archives."""
    candidates = (data_dir / folder / f"{name}{ending}" for folder in _FOLDERS for ending in ("", ".npz"))
    return next((path for path in candidates if path.is_file()), None)


def convert(data_dir: str | Path, cache_dir: str | Path | None = None) -> list[str]:
    """Converts the official files of a folder to files that can be mapped into memory.

    A file that is already converted is skipped, so an interrupted conversion goes on where it stopped. Every file
    appears under its name only when it is complete. One official file (0.4 GB) is in memory at a time.

    Args:
        data_dir: Folder of the official files.
        cache_dir: Where the converted files go, 3.9 GB; None for `data_dir/mmap`.

    Returns:
        Names of the batches that were converted now.

    Raises:
        FileNotFoundError: A batch is neither there nor converted; the message names all that are missing.
        ValueError: A file is corrupt.
    """
    root, cache = cache_folders(data_dir, cache_dir)
    names = (*TRAIN_FILES, *TEST_FILES)
    sources = {name: find_batch(root, name) for name in names}
    done = {name: _is_converted(cache, name, sources[name]) for name in names}
    missing = [name for name in names if sources[name] is None and not done[name]]
    if missing:
        raise FileNotFoundError(
            f"expected the official ImageNet32 files, got {root} without {', '.join(missing)}; put them there, pickles "
            "or .npz (data/README.md of the project says where they come from)."
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
            write_json_atomically(cache / f"{name}.json", about)  # last: it says that the others are complete
            converted.append(name)
    return converted


def cache_folders(data_dir: str | Path, cache_dir: str | Path | None) -> tuple[Path, Path]:
    """The folder of the official files and that of the converted ones."""
    root = Path(data_dir).expanduser()
    return root, root / "mmap" if cache_dir is None else Path(cache_dir).expanduser()


def _is_converted(cache: Path, name: str, source: Path | None) -> bool:
    try:
        about = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
        whole = all((cache / f"{name}.{part}.npy").is_file() for part in ("images", "labels"))
        # The official file may be deleted after the conversion; if it is there, it must be the one converted.
        same = source is None or (about["source"], about["bytes"]) == (source.name, source.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return whole and same


def missing_batches(data_dir: Path, cache: Path, names: Sequence[str]) -> list[str]:
    """The batches among `names` that are not converted, or from another official file than the one that is there."""
    return [name for name in names if not _is_converted(cache, name, find_batch(data_dir, name))]


class MappedImages:
    """Converted batches, one after the other, mapped into memory when first read.

    Args:
        cache: Folder of the converted files.
        names: The batches.
        relabeling: What each of the authors' classes is called, see `label_map`.

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
            raise ValueError(
                f"expected a converted file, got {path}, which is damaged ({error}); "
                "delete it, and it is converted anew."
            ) from None
        if array.ndim != axes:
            raise ValueError(
                f"expected {axes} axes, got shape {array.shape} in {path}; delete it, and it is converted anew."
            )
        return np.asanyarray(array)

    def _map(self, number: int) -> Pixels:
        if number not in self._maps:
            array = self._open(f"{self.names[number]}.images.npy", 2)
            count = int(self.ends[number] - (self.ends[number - 1] if number else 0))
            if array.shape != (count, ROW) or array.dtype != np.uint8:
                raise ValueError(
                    f"expected uint8 ({count}, {ROW}), got {array.dtype} {array.shape} in "
                    f"{self.cache / self.names[number]}.images.npy; delete it, and it is converted anew."
                )
            self._maps[number] = array
        return self._maps[number]

    def read(self, rows: Rows) -> Pixels:
        """Pixels of some rows, uint8 `(N, 3, 32, 32)`."""
        pixels = np.empty((len(rows), ROW), dtype=np.uint8)
        batches = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(batches):
            chosen = batches == number
            start = self.ends[number - 1] if number else 0
            pixels[chosen] = self._map(int(number))[rows[chosen] - start]
        return pixels.reshape(-1, 3, 32, 32)
