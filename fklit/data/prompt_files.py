"""Reads prompts: from `.txt`, tables or JSON lines, or from a Python list."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FORMATS = (".txt", ".csv", ".tsv", ".jsonl")


def read_prompts(path: str | Path, *, column: str = "prompt") -> list[dict[str, Any]]:
    """Reads a file of prompts, one dictionary a prompt, with the prompt under `"prompt"`.

    * `.txt`: one prompt a line; empty lines are skipped.
    * `.csv`, `.tsv`: a header, and the prompt in `column`; the other columns are kept.
    * `.jsonl`: one JSON object a line, the prompt under `column`; the other keys are kept. GenEval's
      `evaluation_metadata.jsonl` is such a file.

    Args:
        path: The file, in UTF-8.
        column: Name of the column or key that holds the prompt.

    Returns:
        The prompts with their metadata, in the order of the file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind, holds no prompt, or has a line that cannot be read.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"expected a file of prompts in {', '.join(FORMATS)}, got {path}; give one of these.")
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a file of prompts, got {path}, which does not exist (looked for {path.absolute()}); "
            "give the path of a .txt, .csv or .jsonl file."
        )
    reader = {".txt": _read_text, ".jsonl": _read_json_lines}.get(path.suffix.lower(), _read_table)
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
                "write one object a line."
            ) from None
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number}: expected a JSON object, got a {type(row).__name__}; "
                f'write one such as {{"{column}": "a green heart"}}.'
            )
        yield _with_prompt(row, column, f"{path}, line {number}")


def _read_table(path: Path, column: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            if reader.fieldnames and column not in reader.fieldnames:
                raise ValueError(
                    f"{path}, line 1: expected a column {column!r}, got {list(reader.fieldnames)}; "
                    "name it so in the header, or set `column` to the one that holds the prompts."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(
                        f"{where}: expected {len(reader.fieldnames or [])} cells as in the header, got more or fewer; "
                        "put a prompt with a comma in double quotes."
                    )
                yield _with_prompt(dict(row), column, where)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: expected a table, got {error}; check the quotes."
            ) from None


def _with_prompt(row: dict[str, Any], column: str, where: str) -> dict[str, Any]:
    if column not in row:
        raise ValueError(f"{where}: expected a key {column!r}, got {list(row)}; write the prompt there.")
    prompt = row[column]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: expected a text under {column!r}, got {prompt!r}; write one that is not empty.")
    return {**row, "prompt": prompt}


def prompts_from_list(prompts: Sequence[Any]) -> list[dict[str, Any]]:
    """Prompts in the form of `read_prompts`.

    Args:
        prompts: Texts, or mappings with a text under `"prompt"`.

    Raises:
        ValueError: There are none, or one is something else.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"expected a list of at least one prompt, got {prompts!r}; give one.")
    rows = []
    for place, prompt in enumerate(prompts):
        row = dict(prompt) if isinstance(prompt, Mapping) else {"prompt": prompt}
        if not isinstance(row.get("prompt"), str):
            raise ValueError(
                f"expected prompts[{place}] as a text, or a mapping with a text under 'prompt', got {prompt!r}; "
                "change it."
            )
        rows.append(row)
    return rows
