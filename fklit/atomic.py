"""Files that appear under their name only when they are complete, and stay there if the machine fails afterwards."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_ENDING = ".part"


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, renamed to `path` when the block ends well and removed when it does not.

    File and folder are flushed to the disk, and the temporary name is unique, so several processes may write at once:
    the last one wins, and a reader never sees a part of a file.

    Args:
        path: The final name, in a folder that exists; an older file of that name stays until then.

    Raises:
        OSError: The disk is full or cannot be written; it names `path`.
    """
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}{_ENDING}")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say of which file
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that do not exist, and has the disk keep them.

    Args:
        folder: What to make; one that exists is left alone.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _flush_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all.

    Args:
        path: The file; an older one is replaced.
        text: Its content, line ends included.
    """
    with write_atomically(path) as file:
        file.write(text.encode("utf-8"))


def write_json_atomically(path: Path, content: Any, *, indent: int | None = None, sort_keys: bool = False) -> None:
    """Writes a JSON file in UTF-8 that ends with a line break, complete or not at all.

    Args:
        path: The file; an older one is replaced.
        content: What `json.dumps` takes.
        indent: Spaces of each level; None for a single line.
        sort_keys: Write the keys of every object in alphabetic order.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have.
        TypeError: Something is of no type that JSON has.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    write_text_atomically(path, text + "\n")


def remove_leftovers(folder: Path, *, older_than: float = 3600.0) -> None:
    """Removes what killed processes left of their unfinished files.

    Args:
        folder: Where `write_atomically` wrote; it need not exist.
        older_than: Seconds since the last byte was written. Younger files may belong to a process that still runs.
    """
    for part in folder.glob(f".*{_ENDING}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > older_than:
                part.unlink()


def _flush_folder(folder: Path) -> None:
    """Makes a renaming last; does nothing where folders cannot be flushed (Windows, some network file systems)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
