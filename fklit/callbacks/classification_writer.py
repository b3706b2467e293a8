"""Writes the classes that `predict` finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, distributed

from fklit.atomic import make_folder, write_atomically

DEFAULT_NAME = "predictions.pt"


class ClassificationWriter(BasePredictionWriter):
    """Writes what an `EqPropTask` predicts to one file, the same for any number of processes.

    ```python
    torch.load(path, weights_only=True) == {
        "index": int64 (N,),         where each image is in the files of its split, ascending
        "prediction": int64 (N,),    its class, from 0
        "scores": (N, classes),      logits, or without a readout the output's activities
    }
    ```

    Args:
        path: The file; its folder is made if it does not exist. An older file is replaced when the new one is whole.
            None takes `predictions.pt` in the trainer's `default_root_dir`.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__("epoch")
        self.path = path

    def file(self, trainer: L.Trainer) -> Path:
        """The file."""
        return Path(self.path or Path(trainer.default_root_dir, DEFAULT_NAME)).expanduser()

    def results(self, trainer: L.Trainer) -> dict[str, Path]:
        """Where the results are, by what they are."""
        return {"predictions": self.file(trainer)}

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Joins the batches of all processes and writes them, on the first process."""
        parts: list[list[dict[str, Tensor]]] = [list(predictions)]
        if trainer.world_size > 1:
            parts = [[] for _ in range(trainer.world_size)]
            distributed.gather_object(list(predictions), parts if trainer.is_global_zero else None)
        if not trainer.is_global_zero:
            return
        batches = [batch for part in parts for batch in part]
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in ("index", "prediction", "scores")}
        order = joined["index"].argsort(stable=True)
        path = self.file(trainer)
        make_folder(path.parent)
        with write_atomically(path) as file:
            torch.save({name: values[order] for name, values in joined.items()}, file)
