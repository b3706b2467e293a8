"""Tiny random pipelines of diffusers' families, one module a family, for the compatibility table.

Each module has `ROWS`, a list of `Row`; a new family is a new module, found by itself.
"""

import functools
import importlib
import pkgutil

from tiny_families.row import Row


@functools.cache
def rows() -> dict[str, Row]:
    """All rows by the name of their pipeline's class.

    Raises:
        ValueError: if two rows have one name, or diffusers exports no such class.
    """
    import diffusers

    found: dict[str, Row] = {}
    for module in pkgutil.iter_modules(__path__):
        for row in getattr(importlib.import_module(f"{__name__}.{module.name}"), "ROWS", ()):
            if row.pipeline in found:
                raise ValueError(f"expected one row a class, got two of {row.pipeline}; merge them.")
            if not hasattr(diffusers, row.pipeline):
                raise ValueError(f"expected a class that diffusers exports, got {row.pipeline!r}; fix its row.")
            found[row.pipeline] = row
    return found
