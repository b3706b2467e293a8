"""What writers of a folder share: where it is, and that one run at a time writes to it."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from fklit.callbacks.folder_lock import FolderLock


class FolderWriter(BasePredictionWriter):
    """A writer of results into a folder, which it locks while `predict` runs (`run.lock`, see `FolderLock`).

    Args:
        output_dir: The folder; None takes the trainer's `default_root_dir`.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        super().__init__("batch")
        self.output_dir = output_dir
        self._lock: FolderLock | None = None

    def folder(self, trainer: L.Trainer) -> Path:
        """Folder of the run."""
        return Path(self.output_dir or trainer.default_root_dir).expanduser()

    def take(self, trainer: L.Trainer) -> Path:
        """Takes the folder's lock on the first process.

        Returns:
            The folder.

        Raises:
            ValueError: Another run writes to it; on all processes.
            OSError: It cannot be written; on all processes.
        """
        folder = self.folder(trainer)
        refusal: str | OSError | None = None
        if trainer.is_global_zero:
            lock = FolderLock(folder)
            try:
                refusal = lock.acquire()
                self._lock = None if refusal else lock
            except OSError as error:
                refusal = error
        refusal = trainer.strategy.broadcast(refusal)
        if isinstance(refusal, OSError):
            raise refusal
        if refusal:
            raise ValueError(refusal)
        return folder

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the folder back."""
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Gives the folder back; what is complete stays."""
        self._give_back()

    def _give_back(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
