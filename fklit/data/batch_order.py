"""Which images each process sees, in which order, and how a killed run goes on in the middle of an epoch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler

from fklit.data.counter_random import shuffled
from fklit.data.image_batches import Draw, ImageBatch, ImageDataset, Rows


class BatchOrder(DistributedSampler[Draw]):
    """Whole batches for one of several processes.

    For training the rows are shuffled anew every epoch, as a function of seed and epoch only, and the incomplete last
    batch is omitted. Batch i of W processes with N rows each holds together the same rows as batch i of one process
    with W * N. For evaluation every row comes exactly once, on exactly one process, and all processes have equally
    many batches (a process with one more would wait for the others for ever); the rows are spread evenly over them, so
    a batch may have fewer rows than asked for.

    It is a `DistributedSampler` so that Lightning leaves it in place.

    Args:
        rows: The rows of an epoch.
        batch_size: Rows in a batch of one process, at most.
        shuffle: Training (True) or evaluation (False).
        seed: Of the order.
        rank: Number of this process.
        num_processes: How many there are.

    Raises:
        ValueError: There are too few rows for one batch on every process.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        super().__init__(range(len(rows)), num_replicas=num_processes, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.rows = rows
        self.batch_size = batch_size
        # With a limit in steps, Lightning 2.6 counts an epoch twice when it resumes from its end: the order must not.
        self.shift = 0
        self.start = 0  # batches of the coming epoch that were seen before an interruption
        fewest = len(rows) // num_processes
        if shuffle:
            self.num_batches = fewest // batch_size
            enough = self.num_batches > 0
        else:
            self.num_batches = math.ceil(math.ceil(len(rows) / num_processes) / batch_size)
            enough = fewest >= self.num_batches > 0
        if not enough:
            raise ValueError(
                f"expected enough images for batches of {batch_size} on {num_processes} process(es), got {len(rows)}; "
                "give more images or fewer processes, or change the batch size."
            )

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch + self.shift
        rows = self.rows
        if self.shuffle:
            rows = rows[shuffled(len(rows), self.seed, epoch)]
        mine = rows[self.rank :: self.num_replicas]
        if self.shuffle:
            batches = list(mine[: self.num_batches * self.batch_size].reshape(self.num_batches, self.batch_size))
        else:
            batches = np.array_split(mine, self.num_batches)
        return iter([Draw(epoch, batch) for batch in batches[self.start :]])


class BatchLoader(DataLoader[ImageBatch]):
    """A loader of whole batches that knows how far it is, so that a checkpoint in mid-epoch resumes exactly.

    Lightning stores `state_dict` in its checkpoints and gives it back before the first batch of a resumed run. It is
    for `fit`, `validate` and `test`; `predict` needs a loader whose batches Lightning can make.

    Args:
        dataset: Answers a `fklit.data.image_batches.Draw` with a batch.
        sampler: The order of the batches.
        num_workers: Processes that read; 0 reads in the training process.
        pin_memory: Put batches where a GPU fetches them faster.
    """

    sampler: BatchOrder

    def __init__(
        self, dataset: ImageDataset, sampler: BatchOrder, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,  # the sampler's items are batches
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # DataLoader draws a seed for its workers: not from the global generator
        )
        self._epoch = self._clock = self._seen = 0
        self._resumed: dict[str, int] | None = None

    def __iter__(self) -> Iterator[ImageBatch]:  # type: ignore[override]
        """The batches of an epoch; which one is decided at the first batch, as Lightning sets the epoch after this."""
        order = self.sampler
        order.start = 0
        if self._resumed is not None:
            saved, self._resumed = self._resumed, None
            if saved["clock"] == order.epoch and saved["batches"] < len(order):
                order.shift, order.start = saved["epoch"] - order.epoch, saved["batches"]
            else:  # that epoch was over; Lightning may have counted it twice
                order.shift = saved["epoch"] + 1 - order.epoch
        self._epoch, self._clock, self._seen = order.epoch + order.shift, order.epoch, order.start
        for batch in super().__iter__():
            self._seen += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How far this is: the epoch, what Lightning calls it, and how many of its batches were handed out."""
        return {"epoch": self._epoch, "clock": self._clock, "batches": self._seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch goes on where `state` was saved."""
        self._resumed = dict(state)
