"""Reads prompts: from `.txt`, tables, JSON arrays or JSON lines, or from a Python list."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_USUAL_NAMES = ("prompt", "prompts", "caption", "captions", "text", "texts", "description")
_NOT_EMPTY = "write one that is not empty (a pipeline without prompts takes any name)"


def read_prompts(path: str | Path, *, column: str = "prompt") -> list[dict[str, Any]]:
    """Reads a file of prompts, one dictionary a prompt, with the prompt under `"prompt"`.

    * `.txt`: one prompt a line; empty lines are skipped.
    * `.csv`: a header, and the prompt in `column`; the other columns are kept. Cells may be quoted.
    * `.tsv`: the same with tabs between cells. Nothing is quoted there: a quotation mark is part of the prompt, as in
      PartiPrompts.
    * `.jsonl`, `.ndjson`: one JSON object a line, the prompt under `column`, other keys are kept (GenEval's
      `evaluation_metadata.jsonl` is such a file); or one JSON string a line.
    * `.json`: one array of such objects or strings, as ImageReward's and HPS v2's benchmarks are.

    Args:
        path: The file, in UTF-8.
        column: Name of the column or key that holds the prompt.

    Returns:
        The prompts with their metadata, in the order of the file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind, holds no prompt, or has a line that cannot be read, or an empty prompt.
    """
    path = Path(path).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"expected a file of prompts in {', '.join(FORMATS)}, got {path}; give one of these.")
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a file of prompts, got {path}, which does not exist (looked for {path.absolute()}); "
            f"give the path of a file in {', '.join(FORMATS)}."
        )
    try:
        rows = list(reader(path, column))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected text in UTF-8, got {path} ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    if not rows:
        raise ValueError(f"expected at least one prompt, got none in {path}; add one.")
    return rows


def _read_text(path: Path, column: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:  # not splitlines(), which also splits inside of texts (U+2028)
        for line in file:
            if line.strip():
                yield {"prompt": line.strip()}


def _read_json_lines(path: Path, column: str) -> Iterator[dict[str, Any]]:
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
        yield _from_json(row, column, f"{path}, line {number}")


def _read_json_array(path: Path, column: str) -> Iterator[dict[str, Any]]:
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
            f'[{{"{column}": "a green heart"}}].'
        )
    for place, row in enumerate(rows):
        yield _from_json(row, column, f"{path}, entry {place} (from 0)")


def _from_json(row: object, column: str, where: str) -> dict[str, Any]:
    if isinstance(row, str):
        row = {column: row}
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: expected a JSON object, got a {type(row).__name__}; "
            f'write one such as {{"{column}": "a green heart"}}.'
        )
    return _with_prompt(row, column, where)


def _read_table(path: Path, column: str) -> Iterator[dict[str, Any]]:
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
                if column not in header:
                    raise ValueError(
                        f"{where}: expected a column {column!r}, got {header}; name it so in the header, or "
                        f"{_hint(header)}."
                    )
                continue
            if len(cells) != len(header):
                fix = "remove tabs from the prompt" if tabs else "put a prompt with a comma in double quotes"
                raise ValueError(f"{where}: expected {len(header)} cells as in the header, got {len(cells)}; {fix}.")
            yield _with_prompt(dict(zip(header, cells, strict=True)), column, where)


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
        raise ValueError(f"{where}: expected a text under {column!r}, got {prompt!r}; {_NOT_EMPTY}.")
    return {**row, "prompt": prompt}


def prompts_from_list(prompts: Sequence[Any]) -> list[dict[str, Any]]:
    """Prompts in the form of `read_prompts`.

    Args:
        prompts: Texts, or mappings with a text under `"prompt"`.

    Raises:
        ValueError: There are none, or one is something else, or empty.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"expected a list of at least one prompt, got {prompts!r}; give one.")
    rows = []
    for place, prompt in enumerate(prompts):
        row = dict(prompt) if isinstance(prompt, Mapping) else {"prompt": prompt}
        text = row.get("prompt")
        if not isinstance(text, str):
            raise ValueError(
                f"expected prompts[{place}] as a text, or a mapping with a text under 'prompt', got {prompt!r}; "
                "change it."
            )
        if not text.strip():
            raise ValueError(f"expected prompts[{place}] as a text, got {prompt!r}; {_NOT_EMPTY}.")
        rows.append(row)
    return rows
