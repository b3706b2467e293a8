"""A line of figures for every epoch of `benchmarks/eqprop_paper.py`, which a resumed run goes on with."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

KEPT = ("train/dropped", "train/unconverged", "val/top1", "val/loss", "val/unconverged", "alignment/")


class EpochLog(Callback):
    """Appends to a file after each epoch: its number from 1, processor seconds, and what was logged.

    It also ends a run in time, after a whole epoch: the trainer's `max_time` cuts one short, validates and saves it.

    Args:
        path: the file, in a folder that exists.
        ends: Unix time; no epoch begins that would be over later if it took as long as the one before.
    """

    def __init__(self, path: str, ends: float) -> None:
        self.path, self.ends = Path(path), ends
        self._begun = time.process_time()
        self._since = time.time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._since = time.time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line; validation of the epoch is over by now."""
        now = time.process_time()
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(KEPT)}
        line = {"epoch": trainer.current_epoch + 1, "cpu_seconds": now - self._begun, **logged}
        self._begun = now
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if 2 * time.time() - self._since > self.ends:
            trainer.should_stop = True


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The epochs in order; of one that ran twice, as a run was stopped before its checkpoint, the last line counts."""
    if not path.is_file():
        return []
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found[entry["epoch"]] = entry
    return [found[epoch] for epoch in sorted(found)]
