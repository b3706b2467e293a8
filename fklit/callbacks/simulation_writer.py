"""Writes the groups that ``predict`` simulates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter

from fklit.atomic import write_atomically


class SimulationWriter(BasePredictionWriter):
    """Writes each group of a ``SimulationTask`` into two files that appear whole or not at all.

    ::

        output_dir/00007.npz     "particles" (K, *event) and "log_weights" (K,), "ess" (S,) and "spread" (T,)
        output_dir/00007.json    log Z, final ESS, resamplings, cost; written last

    Args:
        output_dir: Folder; made if it does not exist. SimulationGroups of the same number are replaced.
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
                "particles": prediction.samples[b],
                "log_weights": prediction.log_weights[b],
                "ess": prediction.ess[:, b],
                "spread": prediction.log_weight_std[:, b],
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
