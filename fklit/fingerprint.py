"""Fingerprints of files and folders: equal content, equal fingerprint, wherever it lies."""

import hashlib
from pathlib import Path

_WHOLE = 64 * 2**20  # bytes; larger files are sampled, since hashing 10 GB of weights at every start takes a minute
_SAMPLES, _SAMPLE_SIZE = 64, 2**16
_DOCUMENTS = frozenset({".md", ".png", ".jpg", ".jpeg", ".svg", ".webp"})  # a model card may change without the model


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder (without hidden ones and model cards).

    Of files above 64 MiB only the size and 64 evenly spaced pieces of 64 KiB are read, the first and the last bytes
    among them: any retraining changes these, a single changed weight may not.

    Args:
        path: The file or folder.

    Returns:
        64 hexadecimal digits, independent of where the file or folder lies and of its time stamps.

    Raises:
        FileNotFoundError: There is no such file or folder.
    """
    path = Path(path)
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; give the path of a file or folder.")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        name = file.relative_to(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if file.is_file() and not hidden and file.suffix.lower() not in _DOCUMENTS:
            digest.update(f"{name.as_posix()}\0{_of_file(file)}\n".encode())
    return digest.hexdigest()


def _of_file(path: Path) -> str:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for number in range(_SAMPLES):
            file.seek((size - _SAMPLE_SIZE) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_SIZE))
    return digest.hexdigest()
