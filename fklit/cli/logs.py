"""Logs of earlier runs are kept: a configuration whose logger names a fixed folder may be run as often as one likes."""

import copy
import csv
import importlib
import os
from contextlib import suppress
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

_OF_A_RUN = ("metrics.csv", "hparams.yaml", "config.yaml")


class _ContinuedWriter(ExperimentWriter):
    """Goes on with the ``metrics.csv`` that is there, which Lightning deletes."""

    def _check_log_dir_exists(self) -> None:
        if not self._fs.isfile(self.metrics_file_path):
            return
        with self._fs.open(self.metrics_file_path, "r", newline="") as file:
            text = file.read()
        self.metrics_keys = next(csv.reader(text.splitlines()), [])
        if text and not text.endswith("\n"):  # killed in the middle of a line
            with self._fs.open(self.metrics_file_path, "a", newline="") as file:
                file.write("\r\n")


class ContinuedCSVLogger(CSVLogger):
    """Lightning's ``CSVLogger``, but in a folder that has a ``metrics.csv`` it adds to it; the arguments are the same.

    The command line takes it wherever a configuration names ``CSVLogger``. After a resumption the steps that the
    earlier run logged after its last checkpoint are there twice, in the order in which they were written.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer; made, with its folder, when it is first asked for."""
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _ContinuedWriter(log_dir=self.log_dir)
        return self._experiment


def protect_logs(loggers: Any, subcommand: str) -> tuple[Any, str | None]:
    """The loggers of a configuration, changed so that none of them deletes what is there.

    A run other than ``fit`` whose logger would write into a folder that has something in it gets a folder of its own
    below: ``test/version_0`` and so on. Loggers that number their versions themselves do so already.

    Args:
        loggers: What the configuration says of them; left as it is.
        subcommand: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

    Returns:
        What it shall say; and, if that has changed, the folder in which a ``ModelCheckpoint`` without a ``dirpath``
        would have looked.
    """
    loggers = copy.deepcopy(loggers)
    checkpoints = None
    for place, logger in enumerate(loggers if isinstance(loggers, list) else [loggers]):
        kind = _class_of(logger)
        if kind is CSVLogger:
            logger.class_path = f"{__name__}.{ContinuedCSVLogger.__name__}"
        settings: Any = logger.get("init_args", {}) if kind else {}
        version = settings.get("version")
        if version is None or subcommand == "fit":
            continue
        version = version if isinstance(version, str) else f"version_{version}"
        parent = os.path.join(settings.save_dir, settings.get("name") or "")
        folder = os.path.join(parent, version)
        files = get_filesystem(folder)
        if not files.isdir(folder) or not files.ls(folder):
            continue
        number = 0
        while files.exists(os.path.join(folder, subcommand, f"version_{number}")):
            number += 1
        settings.version = os.path.join(version, subcommand, f"version_{number}")
        if place == 0:
            checkpoints = os.path.join(folder, "checkpoints")
            rank_zero_info(
                f"{os.path.normpath(folder)} holds the log of another run, so this one's is in "
                f"{os.path.join(parent, settings.version)}."
            )
    return loggers, checkpoints


def look_for_checkpoints_in(folder: str, trainer: Trainer) -> None:
    """Lets ``--ckpt_path last`` find the checkpoints of a training although this run logs elsewhere."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = folder


@rank_zero_only
def set_logs_aside(trainer: Trainer) -> None:
    """Renames what an earlier run left where a run from the start will log: ``metrics_1.csv`` is the oldest."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger | TensorBoardLogger)]
    for folder in {logger.log_dir for logger in loggers}:
        files = get_filesystem(folder)
        found = [name for name in _OF_A_RUN if files.isfile(os.path.join(folder, name))]
        number = 1
        while any(files.exists(os.path.join(folder, _numbered(name, number))) for name in _OF_A_RUN):
            number += 1
        for name in found:
            with suppress(FileNotFoundError):  # the first process of another machine was quicker
                files.mv(os.path.join(folder, name), os.path.join(folder, _numbered(name, number)))
        if found:
            kept = ", ".join(_numbered(name, number) for name in found)
            rank_zero_info(f"The log of an earlier run in {os.path.normpath(folder)} is kept as {kept}.")


def _numbered(name: str, number: int) -> str:
    stem, ending = os.path.splitext(name)
    return f"{stem}_{number}{ending}"


def _class_of(logger: Any) -> type | None:
    """The class of a configured logger that writes into a folder ``save_dir/name/version``, else None."""
    if not isinstance(logger, Namespace) or "class_path" not in logger:
        return None
    module, _, name = logger.class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    return kind if isinstance(kind, type) and issubclass(kind, CSVLogger | TensorBoardLogger) else None
