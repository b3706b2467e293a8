"""Finds out whether what is on disk of a prompt is whole: a disk, a copy or a hand may have damaged it since."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fklit.report.record import parse_record

_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"


def damage(folder: Path, record: Mapping[str, Any]) -> str | None:
    """What is wrong with the results of a prompt, or None if all of them can be read.

    Every byte is read: PNG and NPZ files carry checksums of their content, those of videos and audio are in the record.

    Args:
        folder: Folder of the prompt.
        record: Content of its `record.json`.

    Returns:
        A few words that name the file.
    """
    try:
        parsed = parse_record(record, folder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return f"record.json lacks what it should hold ({type(error).__name__}: {error})"
    names = record.get("files")
    if names is None:  # of a development version before 0.2, which did not list them
        names = [f"samples/{slot:04d}.png" for slot in range(parsed.num_particles)]
        names += [name for name in ("metadata.jsonl", "grid.png", "previews.npz") if (folder / name).exists()]
    checksums = record.get("checksums") or {}
    for name in names:
        if fault := _fault(folder / str(name), checksums.get(name)):
            return f"{name} {fault}"
    return None


def _fault(path: Path, checksum: str | None) -> str | None:
    if not path.is_file():
        return "is missing"
    try:
        if checksum is not None:
            return None if hashlib.sha256(path.read_bytes()).hexdigest() == checksum else "has another checksum"
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
            if not path.read_bytes().endswith(_END_OF_PNG):  # the one checksum that PIL leaves out
                return "cannot be read (truncated)"
        elif path.suffix == ".npz":
            read_arrays(path)
        else:
            json.loads(path.read_text(encoding="utf-8"))
    # PIL reports a wrong checksum as a SyntaxError
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return "is empty" if path.stat().st_size == 0 else f"cannot be read ({error})"
    return None


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an NPZ file, with its checksums verified.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"not a whole NPZ file: {type(error).__name__}") from error
