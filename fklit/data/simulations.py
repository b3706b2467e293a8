"""Indices of groups to simulate: the data of a task that needs nothing but seeds."""

from typing import Any, TypedDict

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fklit.data.every_nth import shared, with_idle


class SimulationBatch(TypedDict):
    """Groups that are simulated together."""

    indices: list[int]


def _collate(items: list[int | None]) -> SimulationBatch:
    return {"indices": [index for index in items if index is not None]}


class SimulationDataModule(LightningDataModule):
    """Groups 0 .. num_groups - 1, each on exactly one process; its index and the task's seed determine its noise.

    Args:
        num_groups: Independent groups.
        batch_size: Groups that are simulated together.

    Raises:
        ValueError: Either is below 1.
    """

    def __init__(self, num_groups: int = 1, *, batch_size: int = 1) -> None:
        super().__init__()
        for name, number in (("num_groups", num_groups), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"expected an integer of at least 1, got {name}={number}; raise it.")
        self.num_groups = num_groups
        self.batch_size = batch_size

    def predict_dataloader(self) -> "DataLoader[Any]":
        """The groups of this process; one for which there is none gets an empty batch."""
        groups: Any = with_idle(range(self.num_groups), self.trainer)
        sampler = shared(groups, self.trainer)
        return DataLoader(groups, batch_size=self.batch_size, sampler=sampler, collate_fn=_collate)

    val_dataloader = test_dataloader = predict_dataloader
