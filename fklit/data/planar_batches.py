"""Batch files of ImageNet32: a row an image, 1,024 red, then green, then blue bytes, line by line."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fklit.data.image_batches import Pixels, Rows
from fklit.data.unpickle import load_pickle

ROW = 3 * 32 * 32


@dataclass(frozen=True)
class PlanarBatch:
    """Contents of a batch file: `data` uint8 `(n, 3072)`, `labels` int64 `(n,)` from 0."""

    data: Pixels
    labels: Rows


def read_batch(path: Path, *, num_classes: int, first: int = 0) -> PlanarBatch:
    """Reads and checks one batch file, a restricted pickle or (by its ending) an `.npz` archive.

    Args:
        path: The file.
        num_classes: How many labels there are from `first` on.
        first: The label of class 0 in the file.

    Raises:
        UnsafePickleError: The pickle names something that no array needs.
        ValueError: The file is truncated or corrupt, or its arrays have a wrong type, shape or label.
        FileNotFoundError: There is no such file.
    """
    content = _read_archive(path) if path.suffix == ".npz" else load_pickle(path)
    for key in ("data", "labels"):
        if key not in content:
            raise ValueError(f"expected {key!r} in {path}, got {sorted(content)}; give an official batch file.")
    data, labels = content["data"], _whole_numbers(path, content["labels"])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != ROW:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"expected 'data' as uint8 (n, {ROW}), got {found} in {path}; give an official batch file.")
    if len(labels) != len(data) or not len(data):
        raise ValueError(
            f"expected a label for each image, got {len(labels)} for {len(data)} in {path}; "
            "give an official batch file."
        )
    outside = (labels < first) | (labels >= first + num_classes)
    if outside.any():
        place = int(np.argmax(outside))
        raise ValueError(
            f"expected labels from {first} to {first + num_classes - 1}, got {int(labels[place])} for image {place} of "
            f"{path}; give an official batch file."
        )
    return PlanarBatch(np.ascontiguousarray(data), labels - first)


def _whole_numbers(path: Path, values: Any) -> Rows:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"expected 'labels' as a list of integers, got something else in {path}; give an official batch file."
        )
    return array.astype(np.int64)


def _read_archive(path: Path) -> dict[str, Any]:
    try:
        # np.load given a path leaves the file open when the archive is broken.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            # 'mean', the mean image of training, is not used: the published normalization has one mean a channel.
            return {key: archive[key] for key in archive.files if key != "mean"}
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"expected an .npz archive, got {path}, which is truncated or another ({reason}); fetch it again."
        ) from None
