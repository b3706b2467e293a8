"""Files that appear under their name only when they are whole."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ENDING = ".part"


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, renamed to ``path`` when the block ends well and removed when it does not.

    Args:
        path: The final name; an older file of that name stays until then.
    """
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}{_ENDING}")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, older_than: float = 3600.0) -> None:
    """Removes what killed processes left of their unfinished files.

    Args:
        folder: Where :func:`write_atomically` wrote; it need not exist.
        older_than: Seconds since the last byte was written. Younger files may belong to a process that still runs.
    """
    for part in folder.glob(f".*{_ENDING}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > older_than:
                part.unlink()
