"""Writes the groups that `predict` simulates."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from fklit.atomic import write_atomically, write_text_atomically
from fklit.callbacks.folder_writer import FolderWriter


class SimulationWriter(FolderWriter):
    """Writes each group of a `SimulationTask` into two files, each atomically.

    ```text
    output_dir/00007.npz     "samples" (K, *event) and "log_weights" (K,), "ess" (S,) and "log_weight_std" (T,)
    output_dir/00007.json    log Z, final ESS, resamplings, cost, a hash of the task's settings; written last
    ```

    Args:
        output_dir: Folder; created if it does not exist. Groups of the same index are replaced. None takes the
            trainer's `default_root_dir`.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes the folder."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            self.take(trainer)

    def results(self, trainer: L.Trainer) -> dict[str, Path]:
        """Where the results are, by what they are."""
        return {"groups": self.folder(trainer)}

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the groups of one batch."""
        folder = self.folder(trainer)
        told = json.dumps(dict(pl_module.hparams), sort_keys=True, default=str)
        settings = hashlib.sha256(told.encode()).hexdigest()
        for b, index in enumerate(batch["indices"]):
            arrays = {
                "samples": prediction.samples[b],
                "log_weights": prediction.log_weights[b],
                "ess": prediction.ess[:, b],
                "log_weight_std": prediction.log_weight_std[:, b],
            }
            with write_atomically(folder / f"{index:05d}.npz") as file:
                np.savez_compressed(file, **{name: tensor.cpu().numpy() for name, tensor in arrays.items()})
            record = {
                "log_z": float(prediction.log_z[b]),
                "ess": float(prediction.ess[-1, b]),
                "resamplings": int(prediction.resampled[:, b].sum()),
                "num_steps": prediction.num_steps,
                "denoiser_calls": prediction.budget.denoiser_calls // len(batch["indices"]),
                "seconds": prediction.budget.seconds / len(batch["indices"]),
                "settings": settings,
            }
            write_text_atomically(folder / f"{index:05d}.json", json.dumps(record))
