"""Samples of a cluster as training data."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fklit.checks import check_count, check_fraction
from fklit.molecules.clusters.parallel_tempering import index_of
from fklit.molecules.clusters.samples import ClusterSamples

Batch = Tensor | dict[str, Tensor]


class _Samples(Dataset[Batch]):
    def __init__(self, points: Tensor, scores: Tensor | None) -> None:
        self.points, self.scores = points, scores

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Batch:
        return self._at(index)

    def __getitems__(self, indices: list[int]) -> Batch:
        return self._at(indices)

    def _at(self, index: int | list[int]) -> Batch:
        points = self.points[index]
        return points if self.scores is None else {"x": points, "score": self.scores[index]}


def _as_is(batch: Any) -> Any:
    return batch


class ClusterDataModule(LightningDataModule):
    """Samples of a cluster at one temperature, batches (n, d) of mean-free coordinates, float32, for `ScoreModelTask`.

    With `scores` a batch is a dictionary: the samples under "x" and, under "score", the gradients of their log density,
    which are forces over the temperature.

    The last samples are held out: of every chain, or of the last groups of a simulation. Nothing is turned or permuted:
    that is for the network.

    Args:
        reference: Where the samples come from: a `ClusterReference`, whose file one process makes before the others
            read it, or the `SimulatedSamples` of a run of a network.
        temperature: One of theirs.
        val_fraction: Held-out share, above 0.
        batch_size: Samples of a batch of one process.
        seed: Of their order.
        scores: Whether batches have scores; the task reads them with `target_score_std` only.

    Raises:
        ValueError: For numbers out of range, or a temperature of which there are no samples.
    """

    def __init__(
        self,
        reference: ClusterSamples,
        *,
        temperature: float = 2.0,
        val_fraction: float = 0.1,
        batch_size: int = 256,
        seed: int = 0,
        scores: bool = False,
    ) -> None:
        super().__init__()
        index_of(reference.temperatures, temperature)
        if not 0 < check_fraction("val_fraction", val_fraction) < 1:
            raise ValueError(f"expected a val_fraction between 0 and 1, got {val_fraction}; hold some samples out.")
        self.reference, self.temperature, self.val_fraction = reference, temperature, val_fraction
        self.batch_size, self.seed, self.scores = check_count("batch_size", batch_size), seed, scores

    def prepare_data(self) -> None:
        """Makes the samples, such as the file of a reference."""
        self.reference.make()

    def train_dataloader(self) -> DataLoader[Batch]:
        """The first samples, in random order."""
        order = torch.Generator().manual_seed(self.seed)
        data = self._samples(self._split()[0])
        return DataLoader(data, self.batch_size, shuffle=True, generator=order, collate_fn=_as_is, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The last ones."""
        return DataLoader(self._samples(self._split()[1]), self.batch_size, collate_fn=_as_is)

    def _samples(self, points: Tensor) -> _Samples:
        if not self.scores:
            return _Samples(points, None)
        _, gradient = self.reference.system.energy_and_gradient(points.double())
        return _Samples(points, (-gradient / self.temperature).to(points.dtype))

    def _split(self) -> tuple[Tensor, Tensor]:
        points = self.reference.at(self.temperature)
        held_out = max(round(self.val_fraction * len(points)), 1)
        if len(points) - held_out < self.batch_size:
            raise ValueError(
                f"expected at least {self.batch_size} samples to train on, one batch, got {len(points) - held_out}; "
                "lower batch_size, or take more samples (steps or chains; groups of a simulation)."
            )
        return points[:-held_out], points[-held_out:]
