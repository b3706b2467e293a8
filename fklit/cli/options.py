"""Messages about words that no option has: each becomes one line with the option that may be meant."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

_SUBCOMMANDS = ("fit", "validate", "test", "predict", "calibrate", "configs", "serve-reward")
_OWN = (
    "seed_everything",
    "output_dir",
    "ckpt_path",
    "weights_only",
    "return_predictions",
    "verbose",
    "config",
    "debug",
)


def explain_words(message: str) -> str | None:
    """One line for a message of argparse or jsonargparse that is about the words themselves.

    Args:
        message: The message.

    Returns:
        The line, or None for messages of another form.
    """
    for pattern, line in _FORMS:
        if found := re.fullmatch(pattern, message.strip()):
            return line(*found.groups())
    return None


def _unrecognized(words: str) -> str:
    options = [word.partition("=")[0].removeprefix("--") for word in words.split() if word.startswith("--")]
    if not options:
        return f"expected options such as --model.seed 1, got the word {words!r}; write an option in front of it."
    return f"expected an option, got '--{options[0]}'; {_suggestion(options[0])}"


def _unknown_key(subcommand: str, key: str) -> str:
    near = difflib.get_close_matches(key.partition(".")[0], ("model", "data", "trainer", *_OWN), n=1)
    fix = f"did you mean {near[0]!r}?" if near else "keys are model, data, trainer, output_dir and seed_everything."
    return f"expected a key of a configuration for {subcommand}, got {key!r}; {fix}"


def _required(names: str) -> str:
    missing = [name.rpartition(".")[2] for name in names.split(", ")]
    return (
        f"expected settings of {' and '.join(sorted(missing, reverse=True))}, got none; give a configuration with "
        "--config FILE (`fklit configs list` shows those that ship, `fklit configs copy NAME` writes one)."
    )


def _subcommand(word: str) -> str:
    near = difflib.get_close_matches(word, _SUBCOMMANDS, n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"write one of them, as in fklit predict --config {word}."
    return f"expected a subcommand ({', '.join(_SUBCOMMANDS)}), got {word!r}; {fix}"


def _no_value(option: str) -> str:
    return f"expected a value of {option} or of a key below it, got none; write one behind it."


def _suggestion(option: str) -> str:
    """The option that is meant: of the same place, or of the same name elsewhere."""
    head, _, name = option.partition(".")
    trainer = list(inspect.signature(Trainer.__init__).parameters)[1:]
    if head == "trainer":
        for place, kind in (("model", LightningModule), ("data", LightningDataModule)):
            if name in _arguments(kind):
                return f"did you mean '--{place}.{name}'?"
        near = difflib.get_close_matches(name, trainer, n=1, cutoff=0.5)
        return f"did you mean '--trainer.{near[0]}'?" if near else "`fklit predict --help` lists those of trainer."
    if not name:
        near = difflib.get_close_matches(head, _OWN, n=1, cutoff=0.6)
        for place, known in (("trainer", trainer), ("model", _arguments(LightningModule))):
            if not near and head in known:
                near = [f"{place}.{head}"]
        if near:
            return f"did you mean '--{near[0]}'?"
    return "options start with --model., --data. or --trainer.; `fklit SUBCOMMAND --help` lists them."


def _arguments(kind: type[Any]) -> set[str]:
    """Arguments of fklit's classes of a kind."""
    found: set[str] = set()
    subclasses: list[type[Any]] = kind.__subclasses__()
    for sub in subclasses:
        if sub.__module__.startswith("fklit."):
            found |= set(inspect.signature(sub.__init__).parameters) - {"self"}
        found |= _arguments(sub)
    return found


def names_below(kinds: Iterable[type[Any]]) -> list[str]:
    """Names of the classes of fklit below the given ones.

    Args:
        kinds: Classes.
    """
    found: set[str] = set()
    for kind in kinds:
        subclasses: list[type[Any]] = type.__subclasses__(kind)
        for sub in subclasses:
            if sub.__module__.startswith("fklit.") and not sub.__name__.startswith("_"):
                found.add(sub.__name__)
            found |= set(names_below([sub]))
    return sorted(found)


_FORMS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"unrecognized arguments: (.*)", _unrecognized),
    (r"Subcommand '(\w+)' does not accept option '([^']*)'", _unknown_key),
    (r"the following arguments are required: (.*)", _required),
    (r"argument subcommand: invalid choice: '([^']*)'.*", _subcommand),
    (r"argument (--[\w.]+): expected one argument", _no_value),
)
