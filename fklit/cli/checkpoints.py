"""Hyperparameters of a checkpoint: they fill in what the configuration and the command line do not give."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fklit.cli.renamed import OLD_CHECKPOINT_KEY

Words = Sequence[str] | dict[str, Any]


def saved_model(path: str | None, *, weights_only: bool = True) -> dict[str, Any] | None:
    """The model that a checkpoint was saved with, as a configuration has it.

    Args:
        path: `--ckpt_path`; keywords such as `"last"` are Lightning's to resolve.
        weights_only: whether to refuse checkpoints that hold more than tensors and plain values.

    Returns:
        `class_path` and `init_args`, or None where there is no file, or it holds no hyperparameters of a command line.

    Raises:
        ValueError: The file is no checkpoint, or one that this version cannot load.
    """
    if path is None or not Path(path).is_file():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"ckpt_path: expected a checkpoint of Lightning, got {path} ({reason}).") from None
    if OLD_CHECKPOINT_KEY in checkpoint:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of fklit 0.2 or newer, got {path} of EqPropTask in fklit 0.1; train "
            "again, or go on with fklit 0.1."
        )
    hyperparameters = dict(checkpoint.get("hyper_parameters", {}))
    hyperparameters.pop("_instantiator", None)
    if "_class_path" not in hyperparameters:
        return None
    return {"class_path": hyperparameters.pop("_class_path"), "init_args": hyperparameters}


def laid_under(given: Words, subcommand: str, model: Mapping[str, Any]) -> Words:
    """The arguments of a command line with a model's settings under those that were given.

    Args:
        given: Words, or a dictionary of settings.
        subcommand: What is run.
        model: `class_path` and `init_args`, of the class that is given.
    """
    if not isinstance(given, dict):  # one more configuration, before the others
        return ["--config", json.dumps({subcommand: {"model": model}}), *given]
    settings = dict(given[subcommand])
    own = settings.get("model")
    init_args = own.get("init_args", {}) if isinstance(own, Mapping) else {}
    settings["model"] = {"class_path": model["class_path"], "init_args": {**model["init_args"], **init_args}}
    return {**given, subcommand: settings}
