"""Errors that a user can fix, by kind: each becomes one line; whatever is of no kind keeps its traceback."""

import errno
import opcode
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import UnidentifiedImageError
from yaml import YAMLError

from fklit.feynman_kac.weights import DegenerateGroupError
from fklit.rewards.base import RewardError

_PACKAGE = Path(__file__).parents[1]
_DISK = {
    errno.ENOSPC: "expected room on the disk, got none left{where}; free some, or choose another --output_dir; what is "
    "written is whole, and the same command goes on",
    errno.EDQUOT: "expected room on the disk, got a quota that is used up{where}; free some, or choose another "
    "--output_dir; what is written is whole, and the same command goes on",
    errno.EROFS: "expected a file system that can be written, got a read-only one{where}; choose another --output_dir",
    errno.EACCES: "expected permission, got none{where}; change the permissions, or choose another path",
    errno.EPERM: "expected permission, got none{where}; change the permissions, or choose another path",
    errno.ENOENT: "expected a file or folder, got none{where}; fix the path",
    errno.ENOTDIR: "expected a folder, got a file on the way{where}; fix the path",
    errno.EEXIST: "expected a folder, got a file{where}; choose another path, or remove it",
    errno.EISDIR: "expected a file, got a folder{where}; fix the path",
    errno.EIO: "expected a disk that works, got an input or output error{where}; check the disk",
}


@dataclass(frozen=True)
class Kind:
    """A kind of error that a user can fix.

    Attributes:
        errors: Classes of the errors.
        line: Makes the line; None if the error is not of this kind after all.
    """

    errors: tuple[type[BaseException], ...]
    line: Callable[[BaseException], str | None]


def explain_error(error: BaseException) -> str | None:
    """One line about an error that a user can fix: what was expected, what was given, what to do.

    Args:
        error: As it was raised.

    Returns:
        The line, or None for what only a traceback can explain.
    """
    for kind in KINDS:
        if isinstance(error, kind.errors) and (line := kind.line(error)):
            return " ".join(line.split())
    return None


def _reward(error: BaseException) -> str:
    """With the line of the user's own code that failed."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    frame = _last_frame(cause)
    where = ""
    if cause is not error and frame is not None and _PACKAGE not in Path(frame.tb_frame.f_code.co_filename).parents:
        where = f" ({frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno})"
    return f"{str(error).rstrip('.')}{where}."


def _sentence(error: BaseException) -> str | None:
    """What a `raise` of fklit says is a whole sentence; what Python raises inside of fklit is a bug."""
    frame = _last_frame(error)
    if frame is None or _PACKAGE not in Path(frame.tb_frame.f_code.co_filename).parents:
        return None
    raised = opcode.opname[frame.tb_frame.f_code.co_code[frame.tb_lasti]] == "RAISE_VARARGS"
    return str(error) if raised else None


def _disk(error: BaseException) -> str | None:
    assert isinstance(error, OSError)
    template = _DISK.get(error.errno or 0)
    names = [str(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return template and template.format(where=f" for {names[-1]}" if names else "") + "."


def _picture(error: BaseException) -> str:
    return f"expected a picture, got a damaged file ({error}); replace it."


def _memory(error: BaseException) -> str:
    said = str(error).strip().partition(". ")[0]
    return (
        f"expected more GPU memory, got {said}; lower --model.max_batch, --model.num_particles or --data.batch_size, "
        "or set offload: true of the source."
    )


def _trainer(error: BaseException) -> str | None:
    said = " ".join(str(error).split())
    if "accelerator" in said.lower() or "gpu" in said.lower() or "MisconfigurationException" in said:
        return (
            f"trainer: expected a device that this machine has, got none ({said.rstrip('.')}); "
            "choose --trainer.accelerator cpu or auto, and --trainer.devices to match."
        )
    return f"trainer: {said}"


def _yaml(error: BaseException) -> str:
    return f"expected YAML, got {error}; fix it."


def _last_frame(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


# The first kind that has a line for an error wins.
KINDS = (
    Kind((RewardError,), _reward),
    Kind((DegenerateGroupError,), str),
    Kind((ValueError, TypeError, OSError, RuntimeError, AttributeError), _sentence),
    Kind((UnidentifiedImageError,), _picture),
    Kind((OSError,), _disk),
    Kind((torch.OutOfMemoryError,), _memory),
    Kind((MisconfigurationException,), _trainer),
    Kind((YAMLError,), _yaml),
)
