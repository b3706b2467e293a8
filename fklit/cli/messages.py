"""Error messages of the command line: the one line that matters, with the nearest name that would have been right."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fklit.cli.class_paths import find
from fklit.cli.options import explain_words, names_below
from fklit.renamed import KEYS, MOVED_KEYS, VALUES, renamed_path, renamed_word

# What jsonargparse says around its findings when a value fits no member of a union.
_FRAME = ("Does not validate against", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'NoneType'>")
_KEY = re.compile(r'Parser key "([^"]+)":\s*(.*)')
_CLASS = re.compile(r"Problem with given class_path '([^']+)':\s*(.*)")
_OPTION = re.compile(r"(?:(?:Option|Key) '(\w+)\S*' is not (?:accepted|expected)|unrecognized arguments: --(\w+)).*")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_LITERAL = re.compile(r"Expected a typing\.Literal\[(.+?)\](?:\. Got value: (.*))?")
_TYPE = re.compile(r"Expected an? <class '(?:[\w.]+\.)?(\w+)'>(?:\. Got value: (.*))?")
_GIVEN = re.compile(r"Given value: (?:NestedArg\(key=.*, val='(.*)'\)|(.*))")
_NOT_IMPORTED = re.compile(r"No module named .*|module '.*' has no attribute .*|cannot import name .*")
_NO_SUBCLASS = re.compile(r"Import path does not correspond to a subclass of (\w+)")
_REQUIRED = re.compile(r"the following arguments are required: (.*)")
_SUBTYPE = re.compile(r"\b((?:[a-z_]\w*\.)+[A-Z]\w*)")
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
    if words := explain_words(message):
        return words
    findings = _read(message)
    if not findings:
        return message.strip()
    for finding in findings:
        if words := _renamed(finding):
            return words
    best = min(findings, key=lambda finding: (_rank(finding.text), -finding.depth))
    kinds = [kind for path in dict.fromkeys(_SUBTYPE.findall(message)) if isinstance(kind := find(path), type)]
    return _describe(best, kinds, sorted(set(classes)))


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
        if moved := MOVED_KEYS.get((_owner(finding), option)):
            return f"{place}{option!r} of {_owner(finding)} is now of {moved}."
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


def _describe(finding: _Finding, kinds: list[type], classes: list[str]) -> str:
    where = ".".join(finding.where)
    if option := _option(finding):
        accepted = _arguments(finding.owner)
        fix = nearest(option, accepted) or (f"it takes {', '.join(accepted)}." if accepted else "see --help.")
        return f"{where}: expected an argument of {_owner(finding)}, got {option!r}; {fix}"
    if missing := _NO_CLASS.fullmatch(finding.text):
        near = nearest(missing[1], names_below(kinds), cutoff=0.6) or nearest(missing[1], classes, cutoff=0.6)
        fix = near or "give the full path of a class, such as my_package.MyClass."
        return f"{where}: expected a class, got {missing[1]!r}; {fix}"
    if _NOT_IMPORTED.fullmatch(finding.text) and finding.owner:
        return (
            f"{where}: expected a class that can be imported, got {finding.owner!r} ({finding.text}); fix the path: "
            "modules are looked for among what is installed and in the working directory."
        )
    if other := _NO_SUBCLASS.fullmatch(finding.text):
        known = _below(other[1], kinds)[:2]
        such = f", such as {' or '.join(known)}" if known else ""
        return f"{where}: expected a {other[1]}, got {finding.given!r}, which is none; give one{such}."
    if required := _REQUIRED.fullmatch(finding.text):
        name = f"{where}.{required[1].split(', ')[0]}"
        return f"{where}: expected {required[1]} of {_owner(finding)}, got none; give it, as in --{name} VALUE."
    if literal := _LITERAL.fullmatch(finding.text):
        given = literal[2] or finding.given
        near = nearest(given, re.findall(r"'([^']*)'", literal[1]))
        return f"{where}: expected one of {literal[1]}, got {given!r}" + (f"; {near}" if near else ".")
    if kind := _TYPE.fullmatch(finding.text):
        return f"{where}: expected a value of type {_PLAIN.get(kind[1], kind[1])}, got {kind[2] or finding.given!r}."
    # A message of a constructor stands for itself; anything short gets its place in front.
    return finding.text if not where or finding.text.endswith(".") else f"{where}: {finding.text}"


def _below(name: str, kinds: list[type]) -> list[str]:
    """Names of fklit's classes below the kind of that name."""
    return names_below([kind for kind in kinds if kind.__name__ == name])


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


def nearest(given: str, accepted: list[str], cutoff: float = 0.5) -> str:
    """A question that names the accepted word nearest to a given one; empty if none is near.

    Args:
        given: The word.
        accepted: What it might have been.
        cutoff: Similarity from which on a word is near, 0 to 1.
    """
    same = [word for word in accepted if word.lower() == given.lower()]
    near = difflib.get_close_matches(given, accepted, n=10, cutoff=cutoff)
    # Capitals count least: ClipScore is CLIPScore and not PickScore.
    near.sort(key=lambda word: -difflib.SequenceMatcher(None, given.lower(), word.lower()).ratio())
    found = [*same, *near]
    return f"did you mean {found[0]!r}?" if found else ""
