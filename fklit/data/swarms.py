"""Numbers of swarms to simulate: the data of a task that needs none but its seeds."""

from typing import Any, TypedDict

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fklit.data.every_nth import shared


class SwarmBatch(TypedDict):
    """Swarms side by side."""

    indices: list[int]


def _collate(items: list[int]) -> SwarmBatch:
    return {"indices": list(items)}


class SwarmDataModule(LightningDataModule):
    """Swarms 0 .. num_swarms - 1, each on exactly one process; its number and the task's seed determine its noise.

    Args:
        num_swarms: Independent swarms.
        batch_size: Swarms side by side.

    Raises:
        ValueError: Either is below 1.
    """

    def __init__(self, num_swarms: int = 1, *, batch_size: int = 1) -> None:
        super().__init__()
        for name, number in (("num_swarms", num_swarms), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"{name}={number} was given; give an integer of at least 1.")
        self.num_swarms = num_swarms
        self.batch_size = batch_size

    def predict_dataloader(self) -> "DataLoader[Any]":
        """The swarms of this process.

        Raises:
            ValueError: There are fewer swarms than processes.
        """
        swarms: Any = range(self.num_swarms)
        sampler = shared(swarms, self.trainer, noun="swarm")
        return DataLoader(swarms, batch_size=self.batch_size, sampler=sampler, collate_fn=_collate)

    test_dataloader = predict_dataloader
