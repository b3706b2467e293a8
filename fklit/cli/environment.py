"""Environment variables in configurations: `${oc.env:NAME}` in any value, `$NAME` and `~` in paths."""

import os
import re
from collections.abc import Callable
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader

MODE = "yaml_with_environment"
_VARIABLE = re.compile(r"\$\{oc\.env:\s*(\w+)\s*(?:,([^}]*))?\}")
_SHELL = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_PATHS = re.compile(r"(?:\w+_)?(?:dir|path|dirpath|root)|base|best_of_n|calibration")  # keys of files and folders
_NO_PATHS = ("class_path",)


def register() -> str:
    """Teach jsonargparse the mode of parsing that knows `${oc.env:NAME}`, as OmegaConf writes it.

    Returns:
        The name of the mode, a `parser_mode`.
    """
    load: Callable[[str], Any] = get_loader("yaml")
    set_loader(MODE, lambda text: resolve(load(text)), exceptions=(yaml.YAMLError,))
    return MODE


def resolve(value: Any) -> Any:
    """Put the values of environment variables in place of `${oc.env:NAME}` and `${oc.env:NAME,default}`.

    A value that is nothing else gets the type that it would have in YAML: `${oc.env:COUNT}` may be a number.

    Args:
        value: What YAML holds.

    Raises:
        ValueError: A variable is not set and there is no default.
    """
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if not isinstance(value, str) or "${oc.env:" not in value:
        return value
    text = _VARIABLE.sub(_value_of, value)
    return yaml.safe_load(text) if _VARIABLE.fullmatch(value.strip()) else text


def _value_of(match: re.Match[str]) -> str:
    name, default = match[1], match[2]
    if name not in os.environ and default is None:
        raise ValueError(
            f"expected the environment variable {name} for {match[0]}, got none; set it, or write "
            f"${{oc.env:{name},DEFAULT}}."
        )
    return os.environ.get(name, (default or "").strip())


def expand_paths(settings: Namespace) -> None:
    """Expand `~`, `$NAME` and `${NAME}` in the paths of settings, and what is left of `${oc.env:NAME}`, in place.

    Args:
        settings: Settings with nested ones; paths are the values of keys such as `path`, `root` or `output_dir`.

    Raises:
        ValueError: A variable is not set.
    """
    for key, value in list(settings.items()):
        name = key.rpartition(".")[2]
        if isinstance(value, str) and "${oc.env:" in value:  # of the command line, where jsonargparse loads no texts
            value = settings[key] = _VARIABLE.sub(_value_of, value)
        if isinstance(value, str) and _PATHS.fullmatch(name) and name not in _NO_PATHS:
            settings[key] = _expanded(key, value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Namespace):
                    expand_paths(item)


def _expanded(key: str, value: str) -> str:
    unset = [name for name in _SHELL.findall(value) if name not in os.environ]
    if unset:
        raise ValueError(
            f"{key}: expected environment variables that are set, got {value!r} without {unset[0]}; set it, or write "
            "the path."
        )
    return os.path.expanduser(os.path.expandvars(value)) if value.startswith("~") or "$" in value else value
