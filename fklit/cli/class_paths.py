"""Import paths of configurations."""

import importlib
from typing import Any


def find(path: str) -> Any:
    """What a dotted path names, or None where it cannot be imported.

    Args:
        path: Module and name, or a class method below a class.
    """
    module = path
    names: list[str] = []
    while module:
        try:
            found: Any = importlib.import_module(module)
        except ImportError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
            continue
        for name in names:
            found = getattr(found, name, None)
        return found
    return None
