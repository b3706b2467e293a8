"""Writes the groups that `predict` simulates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter

from fklit.atomic import write_atomically


class SimulationWriter(BasePredictionWriter):
    """Writes each group of a `SimulationTask` into two files, each atomically.

    ```text
    output_dir/00007.npz     "samples" (K, *event) and "log_weights" (K,), "ess" (S,) and "log_weight_std" (T,)
    output_dir/00007.json    log Z, final ESS, resamplings, cost; written last
    ```

    Args:
        output_dir: Folder; created if it does not exist. Groups of the same index are replaced.
    """

    def __init__(self, output_dir: str) -> None:
        super().__init__("batch")
        self.output_dir = output_dir

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
        folder = Path(self.output_dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
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
            }
            with write_atomically(folder / f"{index:05d}.json") as file:
                file.write(json.dumps(record).encode())
