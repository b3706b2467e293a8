"""Draws of a Gaussian mixture: training data of experts whose exact law is known."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fklit.analytic.gaussian import GaussianMixture


class _Draws(Dataset[Tensor]):
    def __init__(self, points: Tensor) -> None:
        self.points = points

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Tensor:
        return self.points[index]

    def __getitems__(self, indices: list[int]) -> Tensor:
        return self.points[indices]


class MixtureDataModule(LightningDataModule):
    """Independent draws of a Gaussian mixture, batches (n, d), float32.

    Args:
        means: M means of d numbers.
        variances: One number, or one for each component.
        weights: One for each component; equal if not given.
        num_train: Vectors to train on.
        num_val: Vectors to validate on.
        batch_size: Vectors in a batch of one process.
        seed: Of the draws and of their order.

    Raises:
        ValueError: For an invalid mixture, or a number that is not positive.
    """

    def __init__(
        self,
        means: list[list[float]],
        variances: float | list[float],
        weights: list[float] | None = None,
        *,
        num_train: int = 50_000,
        num_val: int = 5_000,
        batch_size: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("num_train", num_train), ("num_val", num_val), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"expected {name} of at least 1, got {number}; give an integer.")
        self.law = GaussianMixture(means, variances, weights)
        self.num_train, self.num_val, self.batch_size, self.seed = num_train, num_val, batch_size, seed

    def train_dataloader(self) -> DataLoader[Tensor]:
        """The training vectors in random order."""
        order = torch.Generator().manual_seed(self.seed)
        data = _Draws(self._draws(self.num_train, 2 * self.seed))
        return DataLoader(data, self.batch_size, shuffle=True, generator=order, collate_fn=_as_is, drop_last=True)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Vectors of another draw."""
        return DataLoader(_Draws(self._draws(self.num_val, 2 * self.seed + 1)), self.batch_size, collate_fn=_as_is)

    def _draws(self, count: int, seed: int) -> Tensor:
        return self.law.sample((count,), torch.Generator().manual_seed(seed))


def _as_is(batch: Any) -> Any:
    return batch
