"""Reads prompts: plain ones and those of benchmarks from files, or from a Python list."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fklit.data.prompt_readers import NOT_EMPTY, entries
from fklit.evaluation.benchmark import Benchmark
from fklit.evaluation.names import BENCHMARKS, BenchmarkName, check_name, get_benchmark, recognize

PromptFormat = Literal["auto", "plain", BenchmarkName] | Benchmark
"""What a file of prompts is: "plain" for prompts and metadata as they stand there, or of a benchmark."""


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
        rows = [row for _, row in entries(path, column)]
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
    first = next(entries(path, None), None)
    return None if first is None else recognize(path, first[1])


def _benchmark_rows(path: Path, benchmark: Benchmark) -> list[dict[str, Any]]:
    """The entries of all files of a benchmark, checked, with its tags."""
    rows, seen = [], dict[Any, str]()
    files = benchmark.files(path)
    if not files:
        raise ValueError(f"expected files of {benchmark.name} in the folder {path}, got none; give the path of one.")
    for file in files:
        check_name(file, benchmark)
        for place, (where, entry) in enumerate(entries(file, benchmark.column)):
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
            raise ValueError(f"expected prompts[{place}] as a text, got {prompt!r}; {NOT_EMPTY}.")
        rows.append(row)
    return rows
