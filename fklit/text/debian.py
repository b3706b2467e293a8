"""Files out of packages of Debian, fetched over HTTP at a pinned checksum; no Debian is needed to read them."""

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fklit.atomic import write_atomically

MIRROR = "http://deb.debian.org/debian"


@dataclass(frozen=True)
class DebianPackage:
    """One version of a package.

    Attributes:
        path: Where it is on a mirror, such as `pool/main/h/hello/hello_1_all.deb`.
        sha256: Its checksum.
    """

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """File name of the package."""
        return self.path.rpartition("/")[2]


def fetch_package(package: DebianPackage, folder: str | Path, *, mirror: str = MIRROR) -> Path:
    """Downloads a package, unless it is in the folder already.

    Args:
        package: What to fetch.
        folder: Where it is kept.
        mirror: Address of a mirror of Debian's archive.

    Returns:
        Path of the package.

    Raises:
        RuntimeError: The mirror cannot be reached or has another version.
        ValueError: The checksum is another one.
    """
    target = Path(folder) / package.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        content = target.read_bytes()
    else:
        address = f"{mirror.rstrip('/')}/{package.path}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                content = answer.read()
        except (urllib.error.URLError, OSError) as error:
            raise RuntimeError(
                f"expected {package.name} from {address}, got {error}; check the network, or put the package into "
                f"{folder} yourself."
            ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"expected sha256 {package.sha256}, got {found} of {package.name}; delete {target} and fetch it again."
        )
    if not target.is_file():
        with write_atomically(target) as file:
            file.write(content)
    return target


def unpack_package(package: str | Path, folder: str | Path, *, below: str) -> None:
    """Writes the files of one folder of a package.

    Args:
        package: A `.deb` file.
        folder: Where to; it must exist.
        below: Folder in the package, such as `usr/share/sword`; its regular files lose that prefix.

    Raises:
        ValueError: The file is no Debian package, or has no files there.
    """
    data = next((content for name, content in _members(Path(package)) if name.startswith("data.tar")), None)
    if data is None:
        raise ValueError(f"expected a Debian package, got {package} without data; fetch it again.")
    prefix, written = below.strip("/") + "/", 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isfile() and name.startswith(prefix):
                stream = tar.extractfile(member)
                assert stream is not None
                # Files only, by their last name: nothing can be written outside the folder.
                (Path(folder) / Path(name).name).write_bytes(stream.read())
                written += 1
    if not written:
        raise ValueError(f"expected files below {below}, got none in {package}; give the pinned version.")


def _members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an `ar` archive, which a `.deb` file is."""
    content = package.read_bytes()
    if not content.startswith(b"!<arch>\n"):
        raise ValueError(f"expected a Debian package, got {package}, which is no ar archive; fetch it again.")
    position = 8
    while position + 60 <= len(content):
        # 60 bytes of header: name in the first 16, size in decimal digits in bytes 48 to 58; contents are even-aligned.
        header = content[position : position + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), content[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
