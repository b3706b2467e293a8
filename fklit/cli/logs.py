"""Log folders: every run gets one of its own, and none deletes the log of another."""

import os

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def check_log_folders(trainer: Trainer) -> None:
    """Let Lightning number the run, and refuse a folder whose log would be deleted.

    Loggers without a `version` take the next free number when they are first asked. They are asked here, before any of
    them makes a folder, so that all loggers of a run with the same `save_dir` and `name` get the same number.

    Args:
        trainer: Before it runs.

    Raises:
        ValueError: A `CSVLogger` names the folder of another run: it would delete that run's `metrics.csv`.
    """
    folders = {
        logger: logger.log_dir for logger in trainer.loggers if isinstance(logger, CSVLogger | TensorBoardLogger)
    }
    for logger, folder in folders.items():
        log = os.path.join(folder, "metrics.csv")
        if isinstance(logger, CSVLogger) and get_filesystem(log).isfile(log):
            raise ValueError(
                f"trainer.logger: expected a folder without the log of another run, got {log}, which CSVLogger would "
                "delete; omit `version`, so that runs are numbered, or move that file."
            )
