"""What can be said of a command line before anything is imported: its subcommand and its configuration files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

SUBCOMMANDS = ("fit", "validate", "test", "predict", "calibrate")
_EXAMPLE = "fklit predict --config configs/steering/emoji.yaml"
_SHIPPED = "`fklit configs list` shows those that ship, `fklit configs copy NAME` writes one"


class UsageError(ValueError):
    """Words that no command line takes."""


def check_words(words: Sequence[str]) -> None:
    """Refuse what jsonargparse would answer with words about its own insides.

    Args:
        words: The command line without the program's name.

    Raises:
        UsageError: There is no subcommand, or it does not come first, or a subcommand has nothing to run.
        ValueError: A configuration file is empty, or no YAML, or holds no settings.
        FileNotFoundError: It does not exist.
    """
    given = [word for word in words if word != "--debug"]
    if any(word in ("-h", "--help") or word.startswith(("--help=", "--print_config")) for word in given):
        return
    if not given:
        names = ", ".join((*SUBCOMMANDS, "configs"))
        raise UsageError(f"expected a subcommand ({names} or serve-reward), got none; write {_EXAMPLE}.")
    if given[0].startswith("-"):
        later = next((word for word in given if word in SUBCOMMANDS), None)
        rest = " ".join(word for word in given if word != later)
        fix = f"write the subcommand first: fklit {later} {rest}" if later else f"write {_EXAMPLE}"
        raise UsageError(f"expected a subcommand ({', '.join(SUBCOMMANDS)}), got {given[0]!r} first; {fix}.")
    if given[0] in SUBCOMMANDS:
        if len(given) == 1:
            raise UsageError(
                f"expected what to {given[0]}, got no settings; give a configuration, such as fklit {given[0]} "
                f"--config FILE ({_SHIPPED})."
            )
        for name in _configurations(given):
            check_file(name)


def check_file(name: str) -> None:
    """Refuse a configuration file that cannot be read, with file and line.

    Args:
        name: Its path.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is empty, or no YAML, or holds no settings.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"--config: expected a YAML file, got {name} ({what}); fix the path ({_SHIPPED}).")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: expected YAML in UTF-8, got other bytes at {error.start}; give a text file."
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(_no_yaml(name, text, error)) from None
    if content is None:
        raise ValueError(f"{name}: expected settings, got an empty file; write some ({_SHIPPED}).")
    if not isinstance(content, dict):
        raise ValueError(
            f"{name}: expected settings as `key: value` lines, got a {type(content).__name__}; write some ({_SHIPPED})."
        )


def _no_yaml(name: str, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    lines = text.splitlines()
    content = lines[line - 1] if line <= len(lines) else ""
    if "\t" in content[: len(content) - len(content.lstrip())]:
        return f"{name}, line {line}: expected spaces in front of a key, got a tab; replace it by spaces."
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    column = f", column {mark.column + 1}" if mark else ""
    return f"{name}, line {line}{column}: expected YAML, got {content.strip()!r} ({problem}); fix that line."


def _configurations(words: Sequence[str]) -> Iterator[str]:
    """The files that follow `--config`; settings in place of a file are passed over."""
    for place, word in enumerate(words):
        option, _, value = word.partition("=")
        if option not in ("--config", "-c"):
            continue
        value = value or (words[place + 1] if place + 1 < len(words) else "")
        if value and not value.lstrip().startswith("{"):
            yield value
