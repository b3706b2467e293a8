"""SIGTERM, which clusters send before they kill: a run saves what it has and stops with status 143."""

import signal
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

STATUS = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """The process was asked to stop."""

    def __init__(self) -> None:
        super().__init__(STATUS)


class StopOnSigterm(Callback):
    """Stops a run at SIGTERM.

    `fit` goes on to the end of the training step, as weights are whole only then, and saves `sigterm.ckpt` beside the
    checkpoints. Everything else stops at once: the prompts that are done are on disk, and the same command goes on
    with the others. When the first process ends by an error or a signal, the others are told to stop, too.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listens before anything is loaded."""
        if stage != "fit":
            _listen()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens instead of Lightning, which only takes a note of the signal."""
        _listen()

    on_test_start = on_predict_start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens, unless a training goes on."""
        if trainer.state.fn != "fit":
            _listen()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves what was trained, and stops the other processes."""
        if isinstance(exception, SIGTERMException):
            path = _checkpoint_folder(trainer) / "sigterm.ckpt"
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                print(f"SIGTERM: saved {path}; go on with --ckpt_path {path}", flush=True)
        launcher = trainer.strategy.launcher
        if trainer.is_global_zero and launcher is not None:
            launcher.kill(signal.SIGTERM)


def _checkpoint_folder(trainer: Trainer) -> Path:
    dirpath = getattr(trainer.checkpoint_callback, "dirpath", None)
    return Path(dirpath or trainer.log_dir or trainer.default_root_dir)


def _listen() -> None:
    def stop(signum: int, frame: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is the way out
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
