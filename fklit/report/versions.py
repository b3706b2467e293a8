"""Folders that fklit 0.1 wrote, whose records have other keys: they are refused by name."""

from collections.abc import Mapping
from typing import Any

# Keys that only records of version 0.1 have, and what they are called now.
RENAMED_KEYS = {"spread": "log_weight_std", "information": "stepwise_kl", "weighed": "weighted_steps"}


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
        ValueError: the record has a key of that version.
    """
    for old, new in RENAMED_KEYS.items():
        if old in record:
            raise ValueError(f"expected {new!r}, got {old!r} of fklit 0.1")
