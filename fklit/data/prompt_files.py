"""Reads prompts: from `.txt`, tables, JSON arrays or JSON lines, or from a Python list."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.names import BENCHMARKS, BenchmarkName, check_name, get_benchmark, recognize

Entry = tuple[str, dict[str, Any]]

SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
PromptFormat = Literal["auto", "plain", BenchmarkName] | Benchmark
"""What a file of prompts is: "plain" for prompts and metadata as they stand there, or of a benchmark."""
_USUAL_NAMES = ("prompt", "prompts", "caption", "captions", "text", "texts", "description")
_NOT_EMPTY = "write one that is not empty (a pipeline without prompts takes any name)"


def read_prompts(path: str | Path, *, column: str = "prompt", format: PromptFormat = "auto") -> list[dict[str, Any]]:
    """Reads a file of prompts, one dictionary a prompt, with the prompt under `"prompt"`.

    * `.txt`: one prompt a line; empty lines are skipped.
    * `.csv`: a header, and the prompt in `column`; the other columns are kept. Cells may be quoted.
    * `.tsv`: the same with tabs between cells. Nothing is quoted there: a quotation mark is part of the prompt, as in
      PartiPrompts.
    * `.jsonl`, `.ndjson`: one JSON object a line, the prompt under `column`, other keys are kept; or one JSON string a
      line.
    * `.json`: one array of such objects or strings.

    Args:
        path: The file, in UTF-8.
        column: Name of the column or key that holds the prompt; a benchmark knows its own.
        format: "plain" for the above; a benchmark of `fklit.evaluation` (by name, or an object), whose entries are
            checked and get its `"tag"`; or "auto" for what the file's ending, keys and name say ("plain" where `column`
            is given).

    Returns:
        The prompts with their metadata, in the order of the file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is of another kind, holds no prompt, may be of several benchmarks, or has a line that
            cannot be read, or an empty prompt.
    """
    path = Path(path).expanduser()
    benchmark = find_benchmark(path, column=column, format=format)
    if benchmark is None:
        rows = [row for _, row in _entries(path, column)]
    else:
        rows = _benchmark_rows(path, benchmark)
    if not rows:
        raise ValueError(f"expected at least one prompt, got none in {path}; add one.")
    return rows


def find_benchmark(path: str | Path, *, column: str = "prompt", format: PromptFormat = "auto") -> Benchmark | None:
    """The benchmark that a file of prompts is read as; None for plain prompts.

    Args:
        path: The file; or a folder, for benchmarks of several files.
        column: As in `read_prompts`.
        format: As in `read_prompts`.

    Raises:
        FileNotFoundError, ValueError: As in `read_prompts`; or both a benchmark and a column are given.
    """
    path = Path(path).expanduser()
    if format == "plain" or (format == "auto" and column != "prompt"):
        return None
    if format != "auto":
        if column != "prompt":
            raise ValueError(
                f"expected column with format: plain, got column={column!r} and format={format!r}; leave one out."
            )
        return get_benchmark(format)
    if path.is_dir():
        return next((kind for kind in BENCHMARKS if kind.files(path) not in ([path], [])), None)
    first = next(_entries(path, None), None)
    return None if first is None else recognize(path, first[1])


def _benchmark_rows(path: Path, benchmark: Benchmark) -> list[dict[str, Any]]:
    """The entries of all files of a benchmark, checked, with its tags."""
    rows, seen = [], dict[Any, str]()
    files = benchmark.files(path)
    if not files:
        raise ValueError(f"expected files of {benchmark.name} in the folder {path}, got none; give the path of one.")
    for file in files:
        check_name(file, benchmark)
        for place, (where, entry) in enumerate(_entries(file, benchmark.column)):
            row = benchmark.parse(entry, where, path=file, place=place)
            if benchmark.unique in row:
                value = row[benchmark.unique]
                if value in seen:
                    raise ValueError(
                        f"{where}: expected another {benchmark.unique!r} for each prompt, as {benchmark.name} finds "
                        f"images by it, got {value!r} as in {seen[value]}; remove one."
                    )
                seen[value] = where
            rows.append(row)
    return rows


def _entries(path: Path, column: str | None) -> Iterator[Entry]:
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
