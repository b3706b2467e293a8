"""Items shared among processes, each on exactly one."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from torch.utils.data import DistributedSampler

Item = TypeVar("Item")


class EveryNth(DistributedSampler[int]):
    """Rank r takes items r, r + world, ...: none twice.

    PyTorch's own sampler repeats items until every rank has as many. A repeated prompt or group would cost a whole run,
    and count twice in a mean.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


def shared(items: Sized, trainer: Trainer | None) -> EveryNth | None:
    """Return the sampler of this process, or None where there is only one.

    Args:
        items: What is shared, at least one for each process; see `with_idle`.
        trainer: Of the data module; None outside of a run.
    """
    if trainer is None or trainer.world_size == 1:
        return None
    world = trainer.world_size
    dataset: Any = items
    return EveryNth(dataset, num_replicas=world, rank=trainer.global_rank, shuffle=False)


def with_idle(items: Sequence[Item], trainer: Trainer | None) -> list[Item | None]:
    """Return items with a None for each process that would get none.

    Lightning waits for ever for a process without a batch; one with an empty batch does nothing and keeps step.

    Args:
        items: What is shared.
        trainer: Of the data module; None outside of a run.
    """
    world = 1 if trainer is None else trainer.world_size
    return [*items, *[None] * (world - len(items))]
