"""The number of CPU threads of a run: rounding depends on it, so tasks pin it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def check_threads(number: int | None) -> int | None:
    """Return `num_threads`.

    Raises:
        ValueError: If it is below 1.
    """
    if number is not None and number < 1:
        raise ValueError(
            f"expected at least 1 thread, got num_threads={number}; pass null to leave the number as it is."
        )
    return number


@contextmanager
def pinned_threads(number: int | None) -> Iterator[None]:
    """Run with this many CPU threads; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
