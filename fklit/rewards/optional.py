"""Packages that fklit does not need, imported when a reward of them is loaded."""

import importlib
import warnings
from typing import Any


def import_optional(module: str, *, owner: str, fix: str) -> Any:
    """A module of an optional package.

    Args:
        module: Its name.
        owner: The reward that asks, for messages.
        fix: What installs it.

    Raises:
        ImportError: It is not installed, or something that it needs is not.
    """
    try:
        with warnings.catch_warnings():  # old packages have escapes in their texts that Python warns of
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        said = " ".join(str(error).split())
        raise ImportError(f"{owner} expected the package {module.split('.')[0]}, got {said!r}; {fix}.") from error
