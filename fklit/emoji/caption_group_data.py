"""The groups of pictures and captions as a LightningDataModule."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fklit.emoji.art import load_art
from fklit.emoji.caption_groups import CaptionGroup, CaptionGroupDataset
from fklit.emoji.prompts import ScenePrompt
from fklit.emoji.training.caption_tokens import caption_tokens
from fklit.emoji.training.word_tokenizer import scene_vocabulary, word_tokenizer


class CaptionGroupBatch(TypedDict):
    """G groups, see `CaptionGroup`.

    `pictures` uint8 (G, 4, 3, 64, 64), `tokens` int64 (G, 2, l) of the captions, `places` int64 (G, 2, 2) of the nouns
    of their first two things, 0 for none, `captions` G pairs of texts, `only_relation` bool (G,): the captions name the
    same things in another relation; `truth`, `patches`, `centers` as in a group.
    """

    pictures: torch.Tensor
    tokens: torch.Tensor
    places: torch.Tensor
    captions: list[tuple[str, str]]
    only_relation: torch.Tensor
    truth: torch.Tensor
    patches: torch.Tensor
    centers: torch.Tensor


class CaptionGroupsDataModule(LightningDataModule):
    """Groups of four pictures and two captions, drawn without end.

    Args:
        data_dir: Where the emoji art is.
        batch_size: Groups in a batch.
        num_groups: Groups in a training epoch.
        num_val_groups: Groups of the validation stream.
        max_length: Tokens of a caption, with its start and end.
        seed: Of the training stream; validation uses `seed + 1`.
        num_workers: Processes that draw groups.

    Raises:
        ValueError: A number is below 1.
        FileNotFoundError: The art has not been fetched (raised by `setup`).
    """

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        num_groups: int = 100_000,
        num_val_groups: int = 512,
        max_length: int = 16,
        seed: int = 800_000,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("num_groups", num_groups), ("num_val_groups", num_val_groups)):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.num_groups = num_groups
        self.num_val_groups = num_val_groups
        self.max_length = max_length
        self.seed = seed
        self.num_workers = num_workers
        self._tokenizer = word_tokenizer(scene_vocabulary(start=True))

    def setup(self, stage: str) -> None:
        """Reads the art."""
        art = load_art(self.data_dir)
        self.train_set = CaptionGroupDataset(art, self.num_groups, seed=self.seed)
        self.val_set = CaptionGroupDataset(art, self.num_val_groups, seed=self.seed + 1)

    def collate(self, groups: Sequence[CaptionGroup]) -> CaptionGroupBatch:
        """Joins groups."""
        captions = [group.captions for group in groups]
        flat = [caption for pair in captions for caption in pair]
        tokens, places = caption_tokens(self._tokenizer, flat, self.max_length)
        return CaptionGroupBatch(
            pictures=torch.stack([group.pictures for group in groups]),
            tokens=tokens.view(len(groups), 2, -1),
            places=places.view(len(groups), 2, 2),
            captions=[(first.text, second.text) for first, second in captions],
            only_relation=torch.tensor([_only_relation(*pair) for pair in captions]),
            truth=torch.stack([group.truth for group in groups]),
            patches=torch.stack([group.patches for group in groups]),
            centers=torch.stack([group.centers for group in groups]),
        )

    def train_dataloader(self) -> DataLoader[CaptionGroup]:
        """Shuffled batches of `CaptionGroupBatch`."""
        return DataLoader(
            self.train_set,
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
            collate_fn=self.collate,
        )

    def val_dataloader(self) -> DataLoader[CaptionGroup]:
        """The validation stream, in order."""
        return DataLoader(
            self.val_set, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=self.collate
        )


def _only_relation(first: ScenePrompt, second: ScenePrompt) -> bool:
    """Whether two captions name the same things in another relation."""
    if first.relation is None or second.relation is None:
        return False
    return sorted(item.phrase for item in first.wanted) == sorted(item.phrase for item in second.wanted)
