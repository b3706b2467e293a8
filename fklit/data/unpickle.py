"""Reads pickled image batches without running what a pickle may hold.

`pickle.load` runs any function that the file names, so a tampered batch file is a program. The official
ImageNet32 batches need a handful of names, all of them about arrays; a file that asks for anything else is refused.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy._core import multiarray


class UnsafePickleError(ValueError):
    """A pickle asks for something that a batch of images never needs."""


class _EncodeLatin1:
    """What old protocols of Python 3 hold in place of bytes; it has no attributes that a pickle could change."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes are encoded in {encoding!r}, not in latin1")
        return text.encode("latin1")


class _FromBuffer:
    """How protocol 5 holds an array, as bytes and a shape."""

    __slots__ = ()

    def __call__(self, buffer: bytes, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> Any:
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_ARRAY_PARTS: dict[str, Callable[..., Any]] = {"_reconstruct": multiarray._reconstruct, "scalar": multiarray.scalar}
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", name): part for core in ("core", "_core") for name, part in _ARRAY_PARTS.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _EncodeLatin1(),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafePickleError("an object outside of the file")


def load_pickle(path: str | Path) -> dict[str, Any]:
    """Reads a pickled dictionary of arrays, numbers and texts; nothing of the file is run.

    Args:
        path: The file, written by Python 2 or 3.

    Returns:
        The dictionary with its keys as texts. Texts that Python 2 wrote stay bytes.

    Raises:
        UnsafePickleError: The pickle names a function or class that no array needs.
        ValueError: The file is truncated, is no pickle or holds no dictionary.
        FileNotFoundError: There is no such file.
    """
    with open(path, "rb") as file:
        try:
            content = _ArrayUnpickler(file, encoding="bytes").load()
        except UnsafePickleError as error:
            raise UnsafePickleError(
                f"expected arrays only, got {error} in {path}, which no batch of images needs; it was not loaded, "
                "as it is not official or was tampered with: fetch it again."
            ) from None
        except MemoryError:
            raise ValueError(
                f"expected a batch of images, got {path}, which needs more memory than there is; fetch it again."
            ) from None
        # A damaged stream fails wherever its bytes lead: EOF, a bad opcode, a missing memo, a bad array header.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"expected a pickle, got {path}, which is truncated or another ({reason}); fetch it again."
            ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"expected a dictionary in {path}, got a {type(content).__name__}; give an official batch file."
        )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
