"""Hyperparameters of Lightning modules as plain data, so that `Task.load_from_checkpoint(path)` needs no arguments.

Lightning saves what the command line was given. A module that is built in Python is given objects; they are described
here as the command line would have them, `{"class_path": ..., "init_args": {...}}`, and built again from that by
Lightning's own mechanism when a checkpoint is loaded. A checkpoint then holds no pickled objects, and opens with
`weights_only=True`.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any, Self

_NOT_SAVED = "<not saved, "


class RecordsArguments:
    """Keeps the arguments of the outermost constructor, for classes that do not keep each one as an attribute."""

    _constructor_arguments: dict[str, Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the arguments; `__init__` gets them as usual."""
        created = super().__new__(cls)
        record = None
        with suppress(TypeError):  # a copy is made without arguments, and gets the record with the other attributes
            bound = inspect.signature(cls.__init__).bind(created, *args, **kwargs)
            bound.apply_defaults()
            record = dict([*bound.arguments.items()][1:])
        created.__dict__["_constructor_arguments"] = record  # torch modules refuse setattr before their constructor
        return created

    def constructor_arguments(self) -> dict[str, Any]:
        """Arguments that build this object again.

        Returns:
            The arguments by name. Override it where attributes that may have changed since stand for some of them.
        """
        if self._constructor_arguments is None:
            raise ValueError(f"the arguments of {type(self).__name__} are not known")
        return dict(self._constructor_arguments)


def describe(value: Any) -> Any:
    """Plain data from which jsonargparse builds an equal value.

    Args:
        value: Numbers, strings, paths, enumerations, functions and classes that can be imported, sequences and mappings
            of describable values, dataclasses, objects with a method `constructor_arguments`, and any other object that
            keeps each constructor argument as an attribute of the same name (the convention of scikit-learn).

    Returns:
        None, numbers, strings, lists and dictionaries.

    Raises:
        ValueError: If there is no description; the message says why.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)  # numbers of numpy become Python's
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _import_path(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a mapping has keys that are not strings")
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set) and type(value) in (list, tuple, set, frozenset, range):
        return [describe(item) for item in value]
    path = _import_path(type(value))
    return {"class_path": path, "init_args": {k: describe(v) for k, v in _arguments_of(value).items()}}


def save_hyperparameters(module: Any) -> None:
    """Save the constructor arguments of a Lightning module as hyperparameters.

    Call it in the constructor, right after `super().__init__()`. Arguments of subclasses are found, too, as by
    `LightningModule.save_hyperparameters`. An argument without a description does not disturb training: what is saved
    in its place says why, and the checkpoint then loads only if that argument is given to `load_from_checkpoint`.

    Args:
        module: The `LightningModule`.

    Raises:
        ValueError: If an argument comes from a checkpoint that could not save it.
    """
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters, _given_hyperparameters_context
    from lightning.pytorch.utilities.parsing import collect_init_args

    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    arguments: dict[str, Any] = {}
    for level in collect_init_args(frame.f_back, [], classes=(type(module),)):
        arguments |= level
    for name, value in arguments.items():
        if isinstance(value, str) and value.startswith(_NOT_SAVED):
            raise ValueError(f"{name}={value!r} came from the checkpoint; pass {name}= to load_from_checkpoint.")
    if _given_hyperparameters.get() is not None:  # built by the command line, from words that are plain already
        module.save_hyperparameters()
        return
    described = _describe_arguments(arguments)
    if type(module).__module__ != "__main__":  # which is another module when the checkpoint is loaded elsewhere
        with suppress(ValueError):  # `load_from_checkpoint` of the class itself does not need the path
            described["_class_path"] = _import_path(type(module))
    with _given_hyperparameters_context(described, "lightning.pytorch.cli.instantiate_module"):
        module.save_hyperparameters()


def _describe_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    described = {}
    for name, value in arguments.items():
        try:
            described[name] = describe(value)
        except Exception as error:  # an attribute may run any code, and training must go on
            described[name] = f"{_NOT_SAVED}as {error}; pass {name}= to load_from_checkpoint>"
    return described


def _import_path(thing: Any) -> str:
    """The shortest path from which a class or function can be imported; it survives most moves between files."""
    parts, name = str(thing.__module__).split("."), thing.__qualname__
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        if getattr(sys.modules.get(module), name, None) is thing:
            return f"{module}.{name}"
    raise ValueError(f"{thing.__module__}.{name} cannot be imported by that name")


def _arguments_of(value: Any) -> dict[str, Any]:
    if hasattr(value, "constructor_arguments"):
        found = dict(value.constructor_arguments())
        # `**kwargs` are recorded as one dictionary under their own name
        parameters = inspect.signature(type(value).__init__).parameters.values()
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL and found.get(parameter.name):
                raise ValueError(f"{type(value).__name__} takes *{parameter.name}")
            if parameter.kind is parameter.VAR_KEYWORD:
                found |= found.pop(parameter.name, {})
        return found
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    kind: Any = type(value)
    if kind.__init__ is object.__init__:
        if kind.__new__ is not object.__new__ or getattr(value, "__dict__", None):
            raise ValueError(f"{kind.__name__} has no constructor that says what it is made of")
        return {}
    found = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{kind.__name__} takes any number of arguments")
        if not hasattr(value, name):
            raise ValueError(f"{kind.__name__} keeps no attribute {name!r}")
        found[name] = getattr(value, name)
    return found
