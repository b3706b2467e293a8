"""Error messages of the command line: the one line that matters, with the nearest name that would have been right."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fklit.cli.renamed import KEYS, VALUES, renamed_path, renamed_word

# What jsonargparse says around its findings when a value fits no member of a union.
_FRAME = ("Does not validate against", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'NoneType'>")
_KEY = re.compile(r'Parser key "([^"]+)":\s*(.*)')
_CLASS = re.compile(r"Problem with given class_path '([^']+)':\s*(.*)")
_OPTION = re.compile(r"(?:(?:Option|Key) '(\w+)\S*' is not (?:accepted|expected)|unrecognized arguments: --(\w+)).*")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_LITERAL = re.compile(r"Expected a typing\.Literal\[(.+?)\](?:\. Got value: (.*))?")
_TYPE = re.compile(r"Expected an? <class '(?:[\w.]+\.)?(\w+)'>(?:\. Got value: (.*))?")
_GIVEN = re.compile(r"Given value: (?:NestedArg\(key=.*, val='(.*)'\)|(.*))")
# What a user writes for an abstract type.
_PLAIN = {"Mapping": "dict", "Sequence": "list"}


@dataclass
class _Finding:
    where: tuple[str, ...]  # keys from the outside in
    owner: str | None  # class path that the innermost key belongs to
    text: str
    depth: int
    indent: int
    given: str = "another value"  # told after all members of a union


def explain(message: str, classes: Iterable[str] = ()) -> str:
    """Turns a message of jsonargparse into one line.

    Args:
        message: The message: a finding, or a tree of them when a value fits no member of a union.
        classes: Short names of classes that may be meant where none of the given name is found.

    Returns:
        What was expected, what was given, and the nearest name; the message as it is if it has another form.
    """
    findings = _read(message)
    if not findings:
        return message.strip()
    for finding in findings:
        if words := _renamed(finding):
            return words
    best = min(findings, key=lambda finding: (_rank(finding.text), -finding.depth))
    return _describe(best, sorted(set(classes)))


def raised_by_fklit(error: BaseException) -> bool:
    """Whether fklit itself refused what it was given, so that a traceback would only hide the message."""
    if not isinstance(error, ValueError | TypeError | OSError) or (error.__cause__ and not isinstance(error, OSError)):
        return False
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(__file__).parent.parent in Path(trace.tb_frame.f_code.co_filename).parents


def _read(message: str) -> list[_Finding]:
    findings: list[_Finding] = []
    open_keys: list[tuple[int, str | None, str | None]] = []  # indent, key, class
    for line in message.splitlines():
        text = line.strip().removeprefix("- ").strip()
        if not text or text.startswith(_FRAME):
            continue
        indent = len(line) - len(line.lstrip())
        if value := _GIVEN.fullmatch(text):
            for finding in findings:
                if finding.indent > indent and finding.given == _Finding.given:
                    finding.given = value[1] or value[2]
            continue
        open_keys = [item for item in open_keys if item[0] < indent]
        key, kind = _KEY.fullmatch(text), _CLASS.fullmatch(text)
        if key:
            open_keys.append((indent, key[1], None))
            text = key[2]
        elif kind:
            open_keys.append((indent, None, kind[1]))
            text = kind[2]
        if text and not text.startswith(_FRAME):
            where = tuple(name for _, name, _ in open_keys if name)
            owners = [name for _, _, name in open_keys if name]
            findings.append(_Finding(where, owners[-1] if owners else None, text, len(open_keys), indent))
    return findings


def _rank(text: str) -> int:
    if text.startswith(("Type ", "Expected a path but")):  # what else the value might have been
        return 4
    if _TYPE.fullmatch(text):
        return 3
    return 2 if _NO_CLASS.fullmatch(text) else 1


def _renamed(finding: _Finding) -> str | None:
    """The line for a name of an earlier version."""
    where = ".".join(finding.where)
    place = f"{where}: " if where else ""
    if option := _option(finding):
        new = renamed_word(option, _arguments(finding.owner), KEYS)
        return f"{place}{option!r} of {_owner(finding)} was renamed to {new!r}." if new else None
    if literal := _LITERAL.fullmatch(finding.text):
        given, accepted = literal[2] or finding.given, re.findall(r"'([^']*)'", literal[1])
        new = renamed_word(given, accepted, VALUES)
        return f"{place}{given!r} was renamed to {new!r}." if new else None
    missing = _NO_CLASS.fullmatch(finding.text)
    old = missing[1] if missing else finding.owner
    new = renamed_path(old) if old else None
    return f"{place}{old!r} was renamed to {new!r}." if new else None


def _describe(finding: _Finding, classes: list[str]) -> str:
    where = ".".join(finding.where)
    if option := _option(finding):
        accepted = _arguments(finding.owner)
        fix = _near(option, accepted) or (f"it takes {', '.join(accepted)}." if accepted else "see --help.")
        return f"{where}: expected an argument of {_owner(finding)}, got {option!r}; {fix}"
    if missing := _NO_CLASS.fullmatch(finding.text):
        fix = _near(missing[1], classes, cutoff=0.6) or "give the full path of a class, such as my_package.MyClass."
        return f"{where}: expected a class, got {missing[1]!r}; {fix}"
    if literal := _LITERAL.fullmatch(finding.text):
        given = literal[2] or finding.given
        near = _near(given, re.findall(r"'([^']*)'", literal[1]))
        return f"{where}: expected one of {literal[1]}, got {given!r}" + (f"; {near}" if near else ".")
    if kind := _TYPE.fullmatch(finding.text):
        return f"{where}: expected a value of type {_PLAIN.get(kind[1], kind[1])}, got {kind[2] or finding.given!r}."
    # A message of a constructor stands for itself; anything short gets its place in front.
    return finding.text if not where or finding.text.endswith(".") else f"{where}: {finding.text}"


def _option(finding: _Finding) -> str | None:
    """The argument that the class of the finding does not take."""
    option = _OPTION.fullmatch(finding.text) if finding.where else None
    return option and (option[1] or option[2])


def _owner(finding: _Finding) -> str:
    """Short name of the class that the finding is about."""
    return (finding.owner or finding.where[-1]).rpartition(".")[2]


def _arguments(owner: str | None) -> list[str]:
    if owner is None:
        return []
    module, _, name = owner.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def _near(given: str, accepted: list[str], cutoff: float = 0.5) -> str:
    near = difflib.get_close_matches(given, accepted, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else ""
