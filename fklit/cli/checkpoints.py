"""Hyperparameters of a checkpoint: they fill in what the configuration and the command line do not give."""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fklit.renamed import OLD_CHECKPOINT_KEY

Words = Sequence[str] | dict[str, Any]
_KEYWORDS = ("best", "last", "hpc")  # Lightning finds the file


def saved_model(path: str | None, *, weights_only: bool = True) -> dict[str, Any] | None:
    """The model that a checkpoint was saved with, as a configuration has it.

    Args:
        path: `--ckpt_path`; keywords such as `"last"` are Lightning's to resolve.
        weights_only: whether to refuse checkpoints that hold more than tensors and plain values.

    Returns:
        `class_path` and `init_args`, or None where there is no file, or it holds no hyperparameters of a command line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, or one that this version cannot load.
    """
    if path is None or path in _KEYWORDS or "://" in path or path.startswith("registry") or Path(path).is_dir():
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path: expected a checkpoint, got {path}, which does not exist (looked for {Path(path).absolute()}); "
            "fix the path."
        )
    checkpoint = read_checkpoint(path, weights_only=weights_only)
    if OLD_CHECKPOINT_KEY in checkpoint:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of fklit 0.2 or newer, got {path} of EqPropTask in fklit 0.1; train "
            "again, or go on with fklit 0.1."
        )
    if "pytorch-lightning_version" not in checkpoint:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of Lightning, got {path} with the keys {list(checkpoint)[:4]}; give "
            "a file that a training wrote."
        )
    hyperparameters = dict(checkpoint.get("hyper_parameters", {}))
    hyperparameters.pop("_instantiator", None)
    if "_class_path" not in hyperparameters:
        return None
    return {"class_path": hyperparameters.pop("_class_path"), "init_args": hyperparameters}


def read_checkpoint(path: str, *, weights_only: bool = True) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Args:
        path: The file.
        weights_only: whether to refuse checkpoints that hold more than tensors and plain values.

    Raises:
        ValueError: The file is no checkpoint; the message names it and says what it is.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=weights_only)
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"ckpt_path: expected a checkpoint of Lightning, got {path}, {_what(path, error)}.") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"ckpt_path: expected a checkpoint of Lightning, got {path} with a {kind}; give another file.")
    return content


def _what(path: str, error: Exception) -> str:
    """What a file is that torch cannot load, and what to do."""
    start = Path(path).read_bytes()[:64].lstrip()
    if not start:
        return "an empty file; copy or save it again"
    if start.startswith(b"<"):
        return "an HTML page, as a failed download leaves it; download the file itself"
    if not zipfile.is_zipfile(path):
        what = "a truncated file" if start.startswith(b"PK") else "something else"
        return f"{what}; copy or save it again"
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if unsafe:
        return (
            f"which holds more than tensors and plain values ({unsafe[1]}) and would run code; if you trust whoever "
            "made it, say --weights_only false"
        )
    return f"a damaged file ({str(error).strip().partition(chr(10))[0][:120]}); copy or save it again"


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
