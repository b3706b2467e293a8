"""Where a run writes to: `--output_dir`, and a writer for a `predict` that has none."""

from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from fklit.callbacks import ClassificationWriter, Report, SampleWriter, SimulationWriter, TensorBoardParticles
from fklit.cli.class_paths import find
from fklit.correctors.simulation.task import SimulationTask
from fklit.eqprop.training.task import EqPropTask
from fklit.sampling.task import SamplingTask

# Task -> what writes its predictions.
_DEFAULTS: tuple[tuple[type[LightningModule], type[Callback]], ...] = (
    (SamplingTask, SampleWriter),
    (SimulationTask, SimulationWriter),
    (EqPropTask, ClassificationWriter),
)
_READS_ONLY = (Report, TensorBoardParticles)  # they need predictions, and keep none
_OTHERWISE = "outputs"  # the default root folder of a run that names none


def set_output_dir(settings: Namespace) -> None:
    """Let `output_dir` be where everything of a run goes: results, report, logs, checkpoints.

    Args:
        settings: Of a subcommand, changed in place: the trainer's `default_root_dir`, `output_dir` and `path` of its
            writers, `save_dir` of its loggers and `dirpath` of its checkpoints, wherever they stand.
    """
    folder = settings.get("output_dir")
    if folder is None:
        return
    settings.trainer.default_root_dir = folder
    for kind, item in _classes(settings.trainer, "callbacks"):
        if issubclass(kind, Report):
            item.init_args.output_dir = None  # where the writer writes
        elif issubclass(kind, BasePredictionWriter) and "output_dir" in signature(kind).parameters:
            item.init_args.output_dir = folder
        elif issubclass(kind, ClassificationWriter) and item.init_args.get("path"):
            item.init_args.path = str(Path(folder, Path(item.init_args.path).name))
        elif item.init_args.get("dirpath"):
            item.init_args.dirpath = str(Path(folder, Path(item.init_args.dirpath).name))
    for _, item in _classes(settings.trainer, "logger"):
        if item.init_args.get("save_dir"):
            item.init_args.save_dir = folder


def add_writer(settings: Namespace) -> None:
    """Give a `predict` without a writer the one of its task, so that no result is thrown away.

    Args:
        settings: Of `predict`, changed in place.

    Raises:
        ValueError: There is no writer for the task.
    """
    if settings.get("return_predictions") or settings.get("model") is None:
        return
    if any(_writes(kind) for kind, _ in _classes(settings.trainer, "callbacks")):
        return
    task = find(settings.model.class_path)
    writer = next((writer for kind, writer in _DEFAULTS if isinstance(task, type) and issubclass(task, kind)), None)
    if writer is None:
        raise ValueError(
            f"trainer.callbacks: expected a callback that writes what {settings.model.class_path} predicts, got none; "
            "add one (a BasePredictionWriter), or say --return_predictions true if the task writes itself."
        )
    if settings.trainer.get("default_root_dir") is None:
        settings.trainer.default_root_dir = _OTHERWISE
    given = settings.trainer.get("callbacks") or []
    path = f"fklit.callbacks.{writer.__name__}"
    added = Namespace(class_path=path, init_args=Namespace(**_defaults(writer)))  # type: ignore[no-untyped-call]
    settings.trainer.callbacks = [added, *(given if isinstance(given, list) else [given])]
    rank_zero_info(
        f"trainer.callbacks has no writer: {writer.__name__} writes the results to {settings.trainer.default_root_dir}."
    )


def print_results(trainer: Trainer) -> None:
    """Prints, on the first process, where the results of a run are.

    Args:
        trainer: After it ran.
    """
    if not trainer.is_global_zero:
        return
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        results = getattr(callback, "results", None)
        for what, path in (results(trainer) if callable(results) else {}).items():
            print(f"{what}: {path}", flush=True)


def _classes(trainer: Namespace, key: str) -> Iterator[tuple[type[Any], Namespace]]:
    """Classes of a list of the trainer with their settings; what is no class is passed over."""
    given = trainer.get(key) or []
    for item in given if isinstance(given, list) else [given]:
        kind = find(item.class_path) if isinstance(item, Namespace) and item.get("class_path") else None
        if isinstance(kind, type):
            if item.get("init_args") is None:
                item.init_args = Namespace()  # type: ignore[no-untyped-call]
            yield kind, item


def _writes(kind: type[Any]) -> bool:
    """Whether a callback may keep predictions: a prediction writer, or one of the user's that sees them."""
    if issubclass(kind, BasePredictionWriter):
        return True
    hooks = ("on_predict_batch_end", "on_predict_epoch_end")
    foreign = not kind.__module__.startswith("lightning.") and not issubclass(kind, _READS_ONLY)
    return foreign and any(getattr(kind, hook) is not getattr(Callback, hook) for hook in hooks)


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {name: item.default for name, item in signature(kind).parameters.items()}
