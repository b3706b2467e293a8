"""Labels of classifiers: names that people give to the outputs of a network."""

import difflib
import operator
from collections.abc import Sequence
from typing import Any


def find_label(label: object, labels: Sequence[str], *, owner: str) -> int:
    """Number of a label among those of a model.

    Args:
        label: A number, or a name: as the model has it, in any case, or one of several that it has separated by commas
            ("tabby" for "tabby, tabby cat").
        labels: Names by number.
        owner: The reward that asks, for messages.

    Raises:
        ValueError: There is no such label, or several.
    """
    if not isinstance(label, str):
        number = _index(label)
        if number is None:
            raise ValueError(f"{owner} expected a label as a name or a number, got {label!r}; give one of these.")
        if not 0 <= number < len(labels):
            raise ValueError(f"{owner} expected a label of 0 to {len(labels) - 1}, got {number}; give one of these.")
        return number
    for form in (str, _plain):
        if found := [number for number, name in enumerate(labels) if form(name) == form(label)]:
            return _only(found, label, labels, owner)
    parts = [[_plain(part) for part in name.split(",")] for name in labels]
    if found := [number for number, names in enumerate(parts) if _plain(label) in names]:
        return _only(found, label, labels, owner)
    names = [part.strip() for name in labels for part in name.split(",")]
    near = difflib.get_close_matches(label, names, n=1)
    some = ", ".join(repr(name) for name in labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    fix = f"did you mean {near[0]!r}?" if near else "give one of these."
    raise ValueError(f"{owner} expected a label of its model ({some}), got {label!r}; {fix}")


def _only(found: list[int], label: str, labels: Sequence[str], owner: str) -> int:
    if len(found) > 1:
        those = ", ".join(f"{number} ({labels[number]!r})" for number in found)
        raise ValueError(f"{owner} expected one label by the name {label!r}, got {those}; give the number.")
    return found[0]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _index(label: Any) -> int | None:
    """A whole number as int: also those of NumPy; None for anything else, truth values among them."""
    if isinstance(label, bool):
        return None
    try:
        return operator.index(label)
    except TypeError:
        return None
