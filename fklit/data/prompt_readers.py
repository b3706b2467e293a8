"""The kinds of files that prompts stand in: entry by entry, each with its place for messages."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Entry = tuple[str, dict[str, Any]]
"""Where an entry stands (file and line), and what it holds."""

SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_USUAL_NAMES = ("prompt", "prompts", "caption", "captions", "text", "texts", "description")
NOT_EMPTY = "write one that is not empty (a pipeline without prompts takes any name)"


def entries(path: Path, column: str | None) -> Iterator[Entry]:
    """Where each entry stands, and the entry with its prompt; as it stands in the file for `column` None."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"expected a file of prompts in {', '.join(SUFFIXES)}, got {path}; give one of these.")
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a file of prompts, got {path}, which does not exist (looked for {path.absolute()}); "
            f"give the path of a file in {', '.join(SUFFIXES)}."
        )
    try:
        yield from reader(path, column)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected text in UTF-8, got {path} ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None


def _read_text(path: Path, column: str | None) -> Iterator[Entry]:
    with open(path, encoding="utf-8-sig") as file:  # not splitlines(), which also splits inside of texts (U+2028)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}, line {number}", {"prompt": line.strip()}


def _read_json_lines(path: Path, column: str | None) -> Iterator[Entry]:
    with open(path, encoding="utf-8-sig") as file:
        lines = [(number, line) for number, line in enumerate(file, start=1) if line.strip()]
    for number, line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: expected JSON, got {error.msg} at column {error.colno}; "
                "write one object a line (an array over several lines is a .json file)."
            ) from None
        where = f"{path}, line {number}"
        yield where, _from_json(row, column, where)


def _read_json_array(path: Path, column: str | None) -> Iterator[Entry]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: expected JSON, got {error.msg} at column {error.colno}; write one array "
            "(a file with one object a line is named .jsonl)."
        ) from None
    if not isinstance(rows, list):
        keys = f" with keys {list(rows)}" if isinstance(rows, dict) else ""
        raise ValueError(
            f"{path}: expected a JSON array of prompts, got a {type(rows).__name__}{keys}; write one such as "
            f'[{{"{column or "prompt"}": "a green heart"}}].'
        )
    for place, row in enumerate(rows):
        where = f"{path}, entry {place} (from 0)"
        yield where, _from_json(row, column, where)


def _from_json(row: object, column: str | None, where: str) -> dict[str, Any]:
    if isinstance(row, str):
        row = {column or "prompt": row}
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: expected a JSON object, got a {type(row).__name__}; "
            f'write one such as {{"{column or "prompt"}": "a green heart"}}.'
        )
    return row if column is None else _with_prompt(row, column, where)


def _read_table(path: Path, column: str | None) -> Iterator[Entry]:
    tabs = path.suffix.lower() == ".tsv"
    with open(path, encoding="utf-8-sig", newline="") as file:
        quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        reader = csv.reader(file, delimiter="\t" if tabs else ",", quoting=quoting, strict=True)
        header: list[str] | None = None
        line = 1  # of the file, on which the row starts: a quoted cell may go on for several
        while True:
            where = f"{path}, line {line}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{where}: expected a table, got {error}; check the quotes.") from None
            if cells is None:
                return
            line = reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                if column is not None and column not in header:
                    raise ValueError(
                        f"{where}: expected a column {column!r}, got {header}; name it so in the header, or "
                        f"{_hint(header)}."
                    )
                continue
            if len(cells) != len(header):
                fix = "remove tabs from the prompt" if tabs else "put a prompt with a comma in double quotes"
                raise ValueError(f"{where}: expected {len(header)} cells as in the header, got {len(cells)}; {fix}.")
            row = dict(zip(header, cells, strict=True))
            yield where, row if column is None else _with_prompt(row, column, where)


_READERS = {
    ".txt": _read_text,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": _read_json_array,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def _hint(names: Sequence[str]) -> str:
    """How to say which column holds the prompts: by its usual name if there is one, which is not guessed."""
    usual = [name for known in _USUAL_NAMES for name in names if name.strip().casefold() == known]
    return f"set `column` to {usual[0]!r}" if usual else "set `column` to the one that holds the prompts"


def _with_prompt(row: dict[str, Any], column: str, where: str) -> dict[str, Any]:
    if column not in row:
        names = [name for name in row if isinstance(row[name], str)]
        raise ValueError(
            f"{where}: expected a key {column!r}, got {list(row)}; write the prompt there, or {_hint(names)}."
        )
    prompt = row[column]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: expected a text under {column!r}, got {prompt!r}; {NOT_EMPTY}.")
    return {**row, "prompt": prompt}
