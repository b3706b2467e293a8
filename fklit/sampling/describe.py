"""Settings as JSON and as a hash, so that two runs can be told to be the same run."""

import dataclasses
import enum
import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fklit.fingerprint import fingerprint

_FOLDER_PREFIX = "local-dir:"  # open_clip's spelling of a folder


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-able settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def describe(value: Any) -> Any:
    """JSON-able description of an object that is equal for objects that behave alike.

    Numbers, texts, lists and dictionaries stand for themselves; a text or path that names an existing file or folder
    stands for its content. An object with a method `settings()` is asked. Any other object is its class and the
    arguments of its constructor, read from the attributes of the same name; a function is its name and source.

    Args:
        value: The object: a reward, a schedule, arguments of a pipeline.

    Returns:
        Something `json.dumps` takes.

    Raises:
        TypeError: The object does not keep an argument as an attribute, so that two of them could not be told apart.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)  # JSON has no infinity
    if isinstance(value, str | Path):
        return _describe_text(str(value))
    if isinstance(value, enum.Enum | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | nn.ModuleList):
        return [describe(item) for item in value]
    if isinstance(value, Set):
        return sorted((describe(item) for item in value), key=repr)
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return {"tensor": _digest(plain.view(torch.uint8).numpy().tobytes() if plain.ndim else str(plain).encode()),
                "shape": list(plain.shape), "dtype": str(plain.dtype)}  # fmt: skip
    if callable(getattr(value, "tobytes", None)):  # NumPy arrays and PIL images
        return {"class": _name(type(value)), "bytes": _digest(value.tobytes()), "shape": str(_extent(value))}
    return _describe_object(value)


def _describe_text(text: str) -> Any:
    name = text.removeprefix(_FOLDER_PREFIX)
    # A bare word ("red") is a word, even if a file of that name happens to lie in the working directory.
    if ("/" in name or name != text) and len(name) < 1024 and Path(name).exists():
        return {"content": fingerprint(name)}
    return text


def _describe_object(value: Any) -> Any:
    if inspect.isroutine(value) or isinstance(value, type):
        try:
            source = inspect.getsource(value)
        except (OSError, TypeError):  # builtins, and functions typed into a prompt
            source = ""
        return {"function": _name(value), "source": _digest(source.encode())}
    if callable(getattr(value, "settings", None)):
        return value.settings()
    if dataclasses.is_dataclass(value):
        arguments = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": _name(type(value)), **arguments}
    return {"class": _name(type(value)), **_constructor_arguments(value)}


def _constructor_arguments(value: Any) -> dict[str, Any]:
    names = [
        parameter.name
        for parameter in inspect.signature(type(value).__init__).parameters.values()
        if parameter.name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    missing = [name for name in names if name not in found]
    if missing and isinstance(getattr(value, "rewards", None), nn.ModuleList):  # a reward made of rewards
        found["rewards"], missing = value.rewards, []
    if missing:
        raise TypeError(
            f"{type(value).__name__} does not keep its argument {missing[0]!r} as an attribute, so fklit cannot tell "
            f"whether results on disk were made with the same one; set `self.{missing[0]}` in its __init__, or give it "
            "a method `settings()` that returns a dictionary."
        )
    return {name: describe(item) for name, item in found.items()}


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', repr(kind))}"


def _extent(value: Any) -> Any:
    return getattr(value, "shape", None) or (getattr(value, "mode", None), getattr(value, "size", None))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
