"""Files of published weights: where they are, what is in them, and whether they fit a network."""

import difflib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn


def locate_weights(source: str, filename: str, *, owner: str, cache_dir: str | None = None) -> Path:
    """Path of a file of weights, which is downloaded if `source` names a repository of the Hugging Face hub.

    Args:
        source: A local file, a local folder that holds `filename`, or "owner/name" of a repository that does.
        filename: Name of the file as published.
        owner: The reward that asks, for messages.
        cache_dir: Where the hub's client keeps downloads; None for its default.

    Raises:
        ValueError: `source` is none of these, or the folder does not hold the file.
        OSError: The file could not be downloaded.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / filename).is_file():
            return path / filename
        raise ValueError(
            f"{owner} expected a folder with {filename}, got {source}, which has none; give the file itself, or "
            "download it there."
        )
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise ValueError(
            f"{owner} expected weights as a file, a folder with {filename} or 'owner/name' of the hub, got {source!r}; "
            "check the path."
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(source, filename, cache_dir=cache_dir))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise OSError(
            f"{owner} expected {filename} of {source!r} on the hub, got {type(error).__name__} "
            f"({_first_line(error)}); check the connection, or download the file and give its path."
        ) from error


def read_weights(path: Path, *, owner: str) -> dict[str, Any]:
    """What a file of weights holds, on the CPU, without running code that a pickle may hold.

    Args:
        path: A file of `torch.save` or safetensors.
        owner: The reward that asks, for messages.

    Raises:
        OSError: The file is damaged, or holds more than tensors and containers of them.
    """
    from safetensors import SafetensorError

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        # Mapped where the format allows: a checkpoint of 4 GB is then not held twice.
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        raise OSError(
            f"{owner} expected a file of weights, got {path} ({_first_line(error)}); download it again."
        ) from error
    if not isinstance(found, dict):
        raise OSError(f"{owner} expected a dictionary of weights, got a {type(found).__name__} in {path}; fix it.")
    return found


def fit_weights(network: nn.Module, weights: Mapping[str, Any], *, owner: str, source: object) -> None:
    """Copy weights into a network, all of them and no others.

    Args:
        network: Gets the weights, in its own dtype.
        weights: Tensors by the names of the network.
        owner: The reward that asks, for messages.
        source: Where the weights are from, for messages.

    Raises:
        ValueError: A name is missing or unknown, or a shape differs.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if not isinstance(weights.get(name), Tensor)]
    unknown = [name for name in weights if name not in wanted]
    if missing or unknown:
        near = difflib.get_close_matches(missing[0], unknown, n=1) if missing else []
        said = f"none of {len(missing)} such key(s)" if missing else f"{unknown[0]!r} and {len(unknown) - 1} more"
        said += f" but {near[0]!r}" if near else ""
        what = f"the key {missing[0]!r}" if missing else "no keys of another model"
        raise ValueError(f"{owner} expected {what} in the weights, got {said} in {source}; give the published file.")
    for name, tensor in wanted.items():
        if weights[name].shape != tensor.shape:
            raise ValueError(
                f"{owner} expected {name!r} of shape {tuple(tensor.shape)} in the weights, got "
                f"{tuple(weights[name].shape)} in {source}; give the file of this version."
            )
    network.load_state_dict(dict(weights))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__
