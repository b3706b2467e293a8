"""Prompts to steer on: from a file or a Python list, each with its index and whatever else was known about it."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fklit.data.every_nth import shared

FORMATS = (".txt", ".csv", ".tsv", ".jsonl")


class PromptItem(TypedDict):
    """One prompt: ``index`` is its place in the whole list, ``metadata`` its whole line (with ``prompt`` itself)."""

    prompt: str
    index: int
    metadata: dict[str, Any]


class PromptBatch(TypedDict):
    """B prompts side by side, the same three things as lists."""

    prompts: list[str]
    indices: list[int]
    metadata: list[dict[str, Any]]


def collate_prompts(items: Sequence[PromptItem]) -> PromptBatch:
    """Puts items side by side."""
    return {
        "prompts": [item["prompt"] for item in items],
        "indices": [item["index"] for item in items],
        "metadata": [item["metadata"] for item in items],
    }


def read_prompts(path: str | Path, *, column: str = "prompt") -> list[dict[str, Any]]:
    """Reads a file of prompts, one dictionary a prompt, with the prompt under ``"prompt"``.

    * ``.txt``: one prompt a line; empty lines are passed over.
    * ``.csv``, ``.tsv``: a header, and the prompt in ``column``; the other columns are kept.
    * ``.jsonl``: one JSON object a line, the prompt under ``column``; the other keys are kept. GenEval's
      ``evaluation_metadata.jsonl`` is such a file.

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
        raise ValueError(f"The prompts file {path} ends in {path.suffix!r}; give one of {', '.join(FORMATS)}.")
    if not path.is_file():
        raise FileNotFoundError(
            f"The prompts file {path} does not exist (looked for {path.absolute()}); "
            "give the path of a .txt, .csv or .jsonl file."
        )
    reader = {".txt": _read_text, ".jsonl": _read_json_lines}.get(path.suffix.lower(), _read_table)
    try:
        rows = list(reader(path, column))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    if not rows:
        raise ValueError(f"{path} holds no prompts; give at least one.")
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
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}); give one JSON object a line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number}: a {type(row).__name__} was found; "
                f'give a JSON object such as {{"{column}": "a green heart"}}.'
            )
        yield _with_prompt(row, column, f"{path}, line {number}")


def _read_table(path: Path, column: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            if reader.fieldnames and column not in reader.fieldnames:
                raise ValueError(
                    f"{path}, line 1: the columns are {list(reader.fieldnames)} and none is {column!r}; "
                    "name a column so in the header, or set `column` to the one that holds the prompts."
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(
                        f"{where}: the number of cells differs from the {len(reader.fieldnames or [])} columns of the "
                        "header; put a prompt with a comma in double quotes."
                    )
                yield _with_prompt(dict(row), column, where)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not a table ({error}); check the quotes.") from error


def _with_prompt(row: dict[str, Any], column: str, where: str) -> dict[str, Any]:
    if column not in row:
        raise ValueError(
            f"{where}: the keys are {list(row)} and none is {column!r}; every line needs its prompt there."
        )
    prompt = row[column]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{where}: {column!r} is {prompt!r}; give a text that is not empty.")
    return {**row, "prompt": prompt}


class PromptDataModule(LightningDataModule):
    """Prompts for ``predict`` and ``test``, from a file or a list.

    Every batch is a :class:`PromptBatch`. The index of a prompt is its place in the file (or list), whatever ``limit``,
    batch size and number of processes are: it determines the noise of its samples.

    Args:
        path: A file of prompts, see :func:`read_prompts`.
        prompts: The prompts themselves in place of a file: texts, or dictionaries with a key ``"prompt"``.
        column: Column or key of the file that holds the prompt.
        batch_size: Prompts that are steered side by side. With K particles each, batch_size * K samples are in memory.
        limit: Take the first ``limit`` prompts only; None for all.

    Raises:
        ValueError: Both or neither of ``path`` and ``prompts`` are given, there are no prompts, one of them is not a
            text, or a number is below 1.
    """

    def __init__(
        self,
        path: str | None = None,
        prompts: list[str] | list[dict[str, Any]] | None = None,
        *,
        column: str = "prompt",
        batch_size: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        if (path is None) == (prompts is None):
            raise ValueError(
                f"path={path!r} and {'no' if prompts is None else len(prompts)} prompts were given; "
                "give either the path of a file or a list of prompts."
            )
        for name, number in (("batch_size", batch_size), ("limit", limit)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number} was given; give an integer of at least 1.")
        self.path = path
        self.column = column
        self.batch_size = batch_size
        self.limit = limit
        self._given = None if prompts is None else _from_list(prompts)
        self._items: list[PromptItem] | None = None

    @property
    def items(self) -> list[PromptItem]:
        """All prompts of this run, read when first asked for."""
        if self._items is None:
            rows = self._given if self._given is not None else read_prompts(str(self.path), column=self.column)
            items: list[PromptItem] = [
                {"prompt": row["prompt"], "index": index, "metadata": row} for index, row in enumerate(rows)
            ]
            self._items = items[: self.limit]
        return self._items

    def setup(self, stage: str) -> None:
        """Reads the prompts, so that a bad file is refused before any model is loaded."""
        assert self.items

    def train_dataloader(self) -> Any:
        """Refuses: nothing is trained on prompts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_NOT_FOR_TRAINING)

    def val_dataloader(self) -> Any:
        """Refuses: nothing is validated on prompts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_NOT_FOR_TRAINING)

    def test_dataloader(self) -> DataLoader[PromptItem]:
        """All prompts, each on exactly one rank.

        Raises:
            ValueError: There are fewer prompts than processes.
        """
        return self._loader()

    def predict_dataloader(self) -> DataLoader[PromptItem]:
        """All prompts, each on exactly one rank.

        Raises:
            ValueError: There are fewer prompts than processes.
        """
        return self._loader()

    def _loader(self) -> DataLoader[PromptItem]:
        items: Any = self.items
        sampler = shared(items, self.trainer, noun="prompt")
        return DataLoader(items, batch_size=self.batch_size, sampler=sampler, collate_fn=collate_prompts)


_NOT_FOR_TRAINING = (
    "`fit` or `validate` was asked for with PromptDataModule, which holds prompts to steer on; "
    "use `predict` (writes samples) or `test` (reports metrics)."
)


def _from_list(prompts: Sequence[Any]) -> list[dict[str, Any]]:
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"prompts={prompts!r} was given; give a list with at least one prompt.")
    rows = []
    for place, prompt in enumerate(prompts):
        row = dict(prompt) if isinstance(prompt, Mapping) else {"prompt": prompt}
        if not isinstance(row.get("prompt"), str):
            raise ValueError(
                f"prompts[{place}] is {prompt!r}; give a text, or a dictionary with a text under 'prompt'."
            )
        rows.append(row)
    return rows
