"""Checksums of data files, and how files compare with the published ones."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What was found about one file.

    Attributes:
        name: The file.
        verdict: `"ok"` (checksum or, where none is known, contents as expected), `"missing"` or `"wrong"`.
        detail: The checksum, and what is wrong.
    """

    name: str
    verdict: Literal["ok", "missing", "wrong"]
    detail: str


def checksum(path: Path, algorithm: str, *, unpack: bool = False) -> str:
    """Hexadecimal checksum of a file, or of what a gzip file unpacks to; read in pieces.

    Args:
        path: The file.
        algorithm: A name that `hashlib` knows.
        unpack: Whether the file is gzip and its content counts.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: A file to be unpacked is truncated or damaged.
    """
    digest = hashlib.new(algorithm)
    with gzip.open(path, "rb") if unpack else open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def compare(folder: Path, expected: Mapping[str, str], algorithm: str, *, unpack: bool = False) -> Iterator[Finding]:
    """Compares files of a folder with checksums, one after the other.

    Args:
        folder: Where the files are.
        expected: Checksum of each file by its name.
        algorithm: A name that `hashlib` knows.
        unpack: Whether the files are gzip and their contents count.
    """
    for name, wanted in expected.items():
        path = folder / name
        if not path.is_file():
            yield Finding(name, "missing", f"not in {folder}")
            continue
        try:
            found = checksum(path, algorithm, unpack=unpack)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield Finding(name, "wrong", f"truncated or not gzip ({error})")
            continue
        detail = f"{algorithm} {found}" if found == wanted else f"expected {algorithm} {wanted}, got {found}"
        yield Finding(name, "ok" if found == wanted else "wrong", detail)
