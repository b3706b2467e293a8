"""Settings classes as flat keyword arguments: one declaration for Python, the command line and the documentation."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

import docstring_parser

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_settings(settings: type[Any]) -> Callable[[Function], Function]:
    """Make a function whose `**kwargs` are the fields of a settings class say so.

    Its signature gets each field as a keyword argument with type and default, and its docstring the field's
    description, so that `inspect`, IDEs at run time, jsonargparse and the documentation read one declaration. Static
    type checkers read the `TypedDict` of the same names by which the function annotates its `**kwargs`.

    Args:
        settings: a dataclass whose fields are keyword-only and described in the `Attributes:` of it and its bases.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
        named: Any = function
        named.__signature__ = signature.replace(parameters=[*own, *_parameters(settings)])
        function.__doc__ = _documented(inspect.cleandoc(function.__doc__ or ""), described_fields(settings))
        return function

    return decorate


def described_fields(settings: type[Any]) -> dict[str, str]:
    """Return the description of each field of a dataclass, from the `Attributes:` of it and its bases.

    Raises:
        TypeError: if a field is not described.
    """
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        parsed = docstring_parser.parse(kind.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
        found |= {item.arg_name: item.description or "" for item in parsed.params if item.args[0] == "attribute"}
    missing = [item.name for item in fields(settings) if not found.get(item.name)]
    if missing:
        raise TypeError(f"{settings.__name__} expected a description of {missing} in its Attributes, got none; add it.")
    return {item.name: found[item.name] for item in fields(settings)}


def _parameters(settings: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(settings)
    found = []
    for item in fields(settings):
        default = inspect.Parameter.empty if item.default is MISSING else item.default
        kind = inspect.Parameter.KEYWORD_ONLY
        found.append(inspect.Parameter(item.name, kind, default=default, annotation=hints[item.name]))
    return found


def _documented(text: str, descriptions: dict[str, str]) -> str:
    """Append descriptions to the `Args:` section of a docstring, which is added if there is none."""
    entries = ""
    for name, description in descriptions.items():
        lines = description.splitlines()
        entries += "\n    " + "\n        ".join([f"{name}: {lines[0]}", *(line.strip() for line in lines[1:])])
    head, marker, rest = text.partition("\nArgs:\n")
    if not marker:
        return f"{text}\n\nArgs:{entries}"
    section, blank, later = rest.partition("\n\n")
    return f"{head}{marker}{section}{entries}{blank}{later}"
