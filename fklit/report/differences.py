"""Settings as one level of dotted names, and what differs between two of them."""

import re
from collections.abc import Mapping
from typing import Any

_ABSENT = "not set"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 6  # keys that a message names


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What nested mappings hold, by dotted names.

    Args:
        tree: The mappings; an empty one is a value.
        prefix: What stands in front of every name.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The keys in which settings differ, each with its old and its new value, for a message; empty if none does.

    Args:
        old: Settings as `run.json` has them.
        new: Settings of this run, JSON-able.
    """
    before, now = flatten(old), flatten(new)
    found = [
        f"{key}: {_short(before.get(key, _ABSENT))} -> {_short(now.get(key, _ABSENT))}"
        for key in sorted(before.keys() | now.keys())
        if _plain(before.get(key, _ABSENT)) != _plain(now.get(key, _ABSENT))
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON returns them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    if _DIGEST.fullmatch(text):  # a fingerprint of weights or of a function's source
        return f"content {text[:8]}"
    return text if len(text) <= 60 else f"{text[:57]}..."
