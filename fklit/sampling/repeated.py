"""Which rows of a batch a distributed sampler repeats, so that they are neither sampled nor measured twice."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DistributedSampler


def repeated_rows(loader: Any, seen: int, count: int) -> list[bool]:
    """Tell for each row of a batch whether the sampler repeats an item, so that every process has as many.

    `DistributedSampler` appends the first items to the end of its list and gives process r every n-th place from r on:
    what lies beyond the length of the data set is a repetition.

    Args:
        loader: The loader of this process.
        seen: Rows that this process got in earlier batches of the epoch.
        count: Rows of the batch.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return [False] * count
    dataset: Any = sampler.dataset
    places = (sampler.rank + (seen + row) * sampler.num_replicas for row in range(count))
    return [place >= len(dataset) for place in places]


def loader_at(loaders: Any, index: int) -> Any:
    """The loader of that index among what `trainer.test_dataloaders` gives: one, a list, or a mapping; None if none."""
    if isinstance(loaders, Mapping):
        loaders = [*loaders.values()]
    if isinstance(loaders, list | tuple):
        return loaders[index] if index < len(loaders) else None
    return loaders
