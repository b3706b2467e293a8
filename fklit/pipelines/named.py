"""Whether a pipeline is of a named class of diffusers, or of one that derives from it."""

from typing import Any


def is_one_of(pipeline: Any, starts: str | tuple[str, ...]) -> bool:
    """Return whether the name of a pipeline's class, or of a pipeline class below it, begins with one of `starts`."""
    names = (base.__name__ for base in type(pipeline).__mro__)
    return any("Pipeline" in name and name.startswith(starts) for name in names)
