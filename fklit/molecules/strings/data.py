"""Molecules with their conditions for training of a masked diffusion model."""

from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fklit.molecules.strings.files import TOKENIZER, read_molecules
from fklit.molecules.strings.vocabulary import MoleculeVocabulary
from fklit.text.windows import TextBatch, ordered_batches, shuffled_batches


def keep_some(number: int, properties: int, *, generator: torch.Generator) -> Bool[Tensor, "n p"]:
    """Which conditions each row keeps: none to all of them, every number as probable as any other.

    So a model learns each single condition, each pair and no condition alike.

    Args:
        number: n rows.
        properties: p.
        generator: Of the draws.
    """
    counts = torch.randint(properties + 1, (number, 1), generator=generator)
    ranks = torch.rand(number, properties, generator=generator).argsort(dim=1).argsort(dim=1)
    return ranks < counts


class ConditionedMolecules(Dataset[TextBatch]):
    """Molecules behind their conditions, of which each time that one is read a random set is "any".

    Args:
        folder: Of `write_molecules`.
        split: "train" or "held_out".
        vocabulary: Of the tokenizer of that folder.
        seed: Of which conditions are kept.
        fixed: Keep the same ones whenever a batch of the same rows is read.
    """

    def __init__(
        self, folder: str | Path, split: str, vocabulary: MoleculeVocabulary, *, seed: int, fixed: bool
    ) -> None:
        found = read_molecules(folder, split)
        if found.tokens.shape[1] != vocabulary.max_symbols or found.properties.shape[1] != vocabulary.prefix:
            raise ValueError(
                f"expected molecules of {vocabulary.max_symbols} places and {vocabulary.prefix} properties as the "
                f"tokenizer in {folder} has them, got {found.tokens.shape[1]} and {found.properties.shape[1]}; write "
                "the data set again."
            )
        self.tokens, self.smiles, self.vocabulary = found.tokens, found.smiles, vocabulary
        self.levels: Int64[Tensor, "n p"] = vocabulary.conditions.levels(found.properties)
        self.characters = torch.tensor([len(text) for text in found.smiles])
        self.seed, self.fixed = seed, fixed
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> TextBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> TextBatch:
        rows, vocabulary = torch.tensor(indices), self.vocabulary
        generator = self._generator
        if self.fixed:
            generator = torch.Generator().manual_seed(self.seed + indices[0])
        kept = keep_some(len(rows), vocabulary.prefix, generator=generator)
        # The last column of the tokens of a property is "any".
        levels = torch.where(kept, self.levels[rows], vocabulary.levels.shape[1] - 1)
        front = vocabulary.levels[torch.arange(vocabulary.prefix), levels]
        tokens = torch.cat([front, self.tokens[rows].long()], dim=1)
        given = (torch.arange(vocabulary.length) < vocabulary.prefix).expand(len(rows), -1)
        return TextBatch(tokens=tokens, characters=self.characters[rows], given=given)


class MoleculeDataModule(LightningDataModule):
    """Molecules to train on and to validate on, for `fklit.text.training.masked.MaskedDiffusionTask`.

    A row is P conditions, which are given, and places of symbols, which the model predicts with what fills them up.
    Each time a random set of the conditions is left open, so that one model knows all, none, and what lies between.

    Args:
        data_dir: Folder of `python -m fklit.data fetch moses`, or of `fklit.molecules.write_molecules`.
        batch_size: Molecules in a batch of one process.
        seed: Of the order and of the conditions.

    Raises:
        ValueError: A number is out of its range, or there are too few molecules (in `setup`).
        FileNotFoundError: A file is missing (in `setup`).
    """

    def __init__(self, data_dir: str = "data/moses", batch_size: int = 512, *, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"expected batch_size of at least 1, got {batch_size}; give an integer.")
        self.data_dir, self.batch_size, self.seed = Path(data_dir), batch_size, seed
        self.train_set: ConditionedMolecules | None = None
        self.val_set: ConditionedMolecules | None = None

    def setup(self, stage: str) -> None:
        """Reads the molecules, once."""
        from transformers import AutoTokenizer

        folder = self.data_dir / TOKENIZER
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(
                f"expected {folder / 'tokenizer.json'}, got no such file; run `python -m fklit.data fetch moses`, or "
                "`fklit.molecules.write_molecules` on your own."
            )
        vocabulary = MoleculeVocabulary(AutoTokenizer.from_pretrained(folder))
        if stage == "fit" and self.train_set is None:
            self.train_set = ConditionedMolecules(self.data_dir, "train", vocabulary, seed=self.seed, fixed=False)
            if len(self.train_set) < self.batch_size:
                raise ValueError(
                    f"expected at least {self.batch_size} molecules, got {len(self.train_set)} in {self.data_dir}; "
                    "give more or a smaller batch_size."
                )
        if self.val_set is None:
            self.val_set = ConditionedMolecules(self.data_dir, "held_out", vocabulary, seed=self.seed, fixed=True)

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Shuffled batches; the incomplete last one is omitted."""
        assert self.train_set is not None
        return shuffled_batches(self.train_set, self.batch_size, seed=self.seed)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        """The held-out molecules, each once, in order."""
        assert self.val_set is not None
        return ordered_batches(self.val_set, self.batch_size)
