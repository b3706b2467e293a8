"""Folders that fklit 0.1 wrote, whose records have other keys: they are refused by name."""

from collections.abc import Mapping
from typing import Any


def old_version(run: Mapping[str, Any]) -> str | None:
    """The version that wrote a run if this one cannot read it, else None.

    Args:
        run: content of `run.json`.
    """
    versions = run.get("versions")
    version = str(versions.get("fklit", "")) if isinstance(versions, Mapping) else ""
    return version if version == "0.1" or version.startswith("0.1.") else None


def check_keys(record: Mapping[str, Any]) -> None:
    """Refuse a record of version 0.1.

    Raises:
        ValueError: the record lacks a key that newer versions write.
    """
    if "steps" in record and "scored_steps" not in record:
        raise ValueError("expected 'scored_steps' of fklit 0.2 or newer, got keys of fklit 0.1")
