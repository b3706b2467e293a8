"""Windows of equally many tokens out of text files, for training of language models of both kinds."""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from jaxtyping import Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class TextBatch(TypedDict):
    """A batch: `tokens` (n, length) int64, and `characters` (n,) int64, which the windows stand for.

    `given` (n, length) bool, which batches may have, marks positions that are never masked, such as a condition.
    """

    tokens: Tensor
    characters: Tensor
    given: NotRequired[Tensor]


class Windows(Dataset[TextBatch]):
    """All windows of `length` tokens that start at the start of a line and lie in one document.

    Args:
        path: A text file: documents with empty lines between them, each of one or more lines.
        tokenizer: Folder of a fast transformers tokenizer (`tokenizer.json`).
        length: Tokens of a window.
        overlapping: Start a window at every line (for training), or at the first line after the last window's end.

    Raises:
        FileNotFoundError: There is no such file or tokenizer.
        ValueError: No document is long enough.
    """

    def __init__(self, path: str | Path, tokenizer: str | Path, *, length: int, overlapping: bool) -> None:
        for file in (Path(path), Path(tokenizer) / "tokenizer.json"):
            if not file.is_file():
                raise FileNotFoundError(
                    f"expected {file}, got no such file; run `python -m fklit.data fetch text`, or give your own."
                )
        self.length = length
        tokens, starts, characters = [], [], []
        position = 0
        for ids, edges, line_starts in _documents(Path(path), Path(tokenizer)):
            tokens.append(ids)
            earliest = 0
            for start in line_starts:
                if start + length <= len(ids) and start >= earliest:
                    starts.append(position + start)
                    characters.append(edges[start + length] - edges[start])
                    earliest = 0 if overlapping else start + length
            position += len(ids)
        if not starts:
            raise ValueError(
                f"expected a document of at least {length} tokens, got none in {path}; give longer texts or a smaller "
                "length."
            )
        self.tokens: Int64[Tensor, " t"] = torch.cat([torch.tensor(ids) for ids in tokens])
        self.starts = torch.tensor(starts)
        self.characters = torch.tensor(characters)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> TextBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> TextBatch:
        rows = torch.tensor(indices)
        places = self.starts[rows, None] + torch.arange(self.length)
        return TextBatch(tokens=self.tokens[places], characters=self.characters[rows])


def _documents(path: Path, tokenizer: Path) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Of each document: ids, the character at which each token and the end is, and the tokens at which lines start."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    texts, lines = [], []
    for document in path.read_text(encoding="utf-8").split("\n\n"):
        parts = [line.strip() for line in document.splitlines() if line.strip()]
        if parts:
            texts.append(" ".join(parts))
            lines.append(parts)
    for text, parts, encoded in zip(texts, lines, encoder.encode_batch(texts, add_special_tokens=False), strict=True):
        # The end counts the space that would follow, as every other token does.
        edges = [*(first for first, _ in encoded.offsets), len(text) + 1]
        ends, offset = [last for _, last in encoded.offsets], 0
        starts: list[int] = []
        for part in parts:
            # The first token that reaches into the line; with byte-level tokens it may begin with the space before.
            starts.append(bisect_right(ends, offset))
            offset += len(part) + 1
        yield encoded.ids, edges, sorted(set(starts))


class TextDataModule(LightningDataModule):
    """Windows of tokens to train on and to validate on.

    Training windows start at every line and overlap, in a new order every epoch; validation windows do not overlap.

    Args:
        data_dir: Folder of the files.
        batch_size: Windows in a batch of one process.
        length: Tokens of a window.
        train_file: Text to train on, one clause or sentence a line, an empty line between documents.
        val_file: Text of the same kind to validate on.
        tokenizer: Folder of the tokenizer in `data_dir`.
        seed: Of the order.

    Raises:
        ValueError: A number is out of its range, or a file has no text that is long enough (in `setup`).
        FileNotFoundError: A file is missing (in `setup`).
    """

    def __init__(
        self,
        data_dir: str = "data/text",
        batch_size: int = 512,
        *,
        length: int = 32,
        train_file: str = "train.txt",
        val_file: str = "held_out.txt",
        tokenizer: str = "tokenizer",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("length", length)):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        self.data_dir = Path(data_dir)
        self.batch_size, self.length, self.seed = batch_size, length, seed
        self.train_file, self.val_file, self.tokenizer = train_file, val_file, tokenizer
        self.train_set: Windows | None = None
        self.val_set: Windows | None = None

    def setup(self, stage: str) -> None:
        """Reads the texts, once."""
        tokenizer = self.data_dir / self.tokenizer
        if stage == "fit" and self.train_set is None:
            path = self.data_dir / self.train_file
            self.train_set = Windows(path, tokenizer, length=self.length, overlapping=True)
            if len(self.train_set) < self.batch_size:
                raise ValueError(
                    f"expected at least {self.batch_size} windows, got {len(self.train_set)} in {path}; give more text "
                    "or a smaller batch_size."
                )
        if self.val_set is None:
            path = self.data_dir / self.val_file
            self.val_set = Windows(path, tokenizer, length=self.length, overlapping=False)

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Shuffled batches; the incomplete last one is omitted."""
        assert self.train_set is not None
        return shuffled_batches(self.train_set, self.batch_size, seed=self.seed)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        """The validation windows, each once, in order."""
        assert self.val_set is not None
        return ordered_batches(self.val_set, self.batch_size)


def shuffled_batches(data: Dataset[TextBatch], batch_size: int, *, seed: int) -> DataLoader[TextBatch]:
    """Batches of a set that gives whole batches by `__getitems__`, in a new order every epoch; no incomplete one."""
    order = torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size, shuffle=True, drop_last=True, generator=order, collate_fn=_as_is)


def ordered_batches(data: Dataset[TextBatch], batch_size: int) -> DataLoader[TextBatch]:
    """Batches of such a set, each item once, in order."""
    return DataLoader(data, batch_size, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch
