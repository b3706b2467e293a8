"""Prompts to sample: from a file or a Python list, each with its index and whatever else was known about it."""

from collections.abc import Sequence
from typing import Any, NoReturn, TypedDict

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fklit.data.every_nth import shared, with_idle
from fklit.data.prompt_files import PromptFormat, find_benchmark, prompts_from_list, read_prompts
from fklit.evaluation.benchmark import Benchmark

__all__ = ["PromptBatch", "PromptDataModule", "PromptItem", "collate_prompts", "read_prompts"]


class PromptItem(TypedDict):
    """One prompt: `index` is its place in the whole list, `metadata` its whole line (with `prompt` itself)."""

    prompt: str
    index: int
    metadata: dict[str, Any]


class PromptBatch(TypedDict):
    """B prompts side by side, the same three things as lists."""

    prompts: list[str]
    indices: list[int]
    metadata: list[dict[str, Any]]


def collate_prompts(batch: Sequence[PromptItem | None]) -> PromptBatch:
    """Puts items side by side; None, of a process that has nothing to do, makes an empty batch."""
    items = [item for item in batch if item is not None]
    return {
        "prompts": [item["prompt"] for item in items],
        "indices": [item["index"] for item in items],
        "metadata": [item["metadata"] for item in items],
    }


class PromptDataModule(LightningDataModule):
    """Prompts for `predict`, `validate` and `test`, from a file or a list.

    Every batch is a `PromptBatch`. The index of a prompt is its place in the file (or list), whatever `limit`,
    batch size and number of processes are: it determines the noise of its samples.

    Args:
        path: A file of prompts, see `read_prompts`; or a folder of HPS v2's benchmark.
        prompts: The prompts themselves in place of a file: texts, or dictionaries with a key `"prompt"`.
        column: Column or key of the file that holds the prompt.
        format: What the file is: "plain", or of a benchmark: "geneval", "geneval2", "evalscope", "hps", "image_reward",
            "drawbench", "parti", or a `fklit.evaluation.Benchmark`, whose entries are checked and get a `"tag"`. "auto"
            recognizes these.
        batch_size: Prompts that are sampled side by side. With K particles each, batch_size * K samples are in memory.
        limit: Take the first `limit` prompts only; None for all.

    Raises:
        ValueError: Both or neither of `path` and `prompts` are given, there are no prompts, one of them is not a
            text or is empty, a benchmark is given without a file, or a number is below 1.
    """

    def __init__(
        self,
        path: str | None = None,
        prompts: list[str] | list[dict[str, Any]] | None = None,
        *,
        column: str = "prompt",
        format: PromptFormat = "auto",
        batch_size: int = 1,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        if (path is None) == (prompts is None):
            raise ValueError(
                f"expected either path or prompts, got path={path!r} and "
                f"{'no' if prompts is None else len(prompts)} prompts; give the path of a file or a list."
            )
        for name, number in (("batch_size", batch_size), ("limit", limit)):
            if number is not None and number < 1:
                raise ValueError(f"expected {name} of at least 1, got {number}; give an integer.")
        if path is None and format not in ("auto", "plain"):
            raise ValueError(
                f"expected path with format={format!r}, got prompts; give the benchmark's file, or leave format out."
            )
        self.path = path
        self.column = column
        self.format: PromptFormat = format
        self.batch_size = batch_size
        self.limit = limit
        self._given = None if prompts is None else prompts_from_list(prompts)
        self._items: list[PromptItem] | None = None

    @property
    def items(self) -> list[PromptItem]:
        """All prompts of this run, read when first asked for."""
        if self._items is None:
            rows = self._given
            if rows is None:
                rows = read_prompts(str(self.path), column=self.column, format=self.format)
            items: list[PromptItem] = [
                {"prompt": row["prompt"], "index": index, "metadata": row} for index, row in enumerate(rows)
            ]
            self._items = items[: self.limit]
        return self._items

    @property
    def benchmark(self) -> Benchmark | None:
        """The benchmark that the prompts are read as; None for plain ones."""
        return None if self.path is None else find_benchmark(self.path, column=self.column, format=self.format)

    def setup(self, stage: str) -> None:
        """Reads the prompts, so that a bad file is refused before any model is loaded.

        Raises:
            ValueError: The stage is "fit", or the file is bad.
        """
        if stage == "fit":  # the check before training would ask for validation batches first
            self.train_dataloader()
        assert self.items

    def train_dataloader(self) -> NoReturn:
        """Refuses: nothing is trained on prompts.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "expected `predict`, `validate` or `test` with PromptDataModule, got `fit`; use `predict` (writes samples) "
            "or `validate` and `test` (report metrics)."
        )

    def test_dataloader(self) -> DataLoader[PromptItem]:
        """All prompts, each on exactly one rank; ranks for which there is none get an empty batch."""
        items: Any = with_idle(self.items, self.trainer)
        sampler = shared(items, self.trainer)
        return DataLoader(items, batch_size=self.batch_size, sampler=sampler, collate_fn=collate_prompts)

    predict_dataloader = val_dataloader = test_dataloader
