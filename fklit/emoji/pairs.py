"""Emoji scenes with captions for contrastive training: each with a hard negative and a corrupted copy."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fklit.emoji.art import EmojiArt, load_art
from fklit.emoji.distractors import distractor
from fklit.emoji.hard_negatives import fulfills, hard_negative
from fklit.emoji.scenes import Scene, compose, place, sample_prompt, scene_rng


class PairGroup(NamedTuple):
    """Images float32 (3, 3, 64, 64) in [0, 1]: a scene, one of a hard negative prompt, the first one corrupted."""

    images: torch.Tensor
    scenes: tuple[Scene, Scene]


class PairBatch(TypedDict):
    """A batch of N images and P captions.

    `images` is float32 (N, 3, 64, 64) in [0, 1]; `prompts` are the P captions, those of the first P images;
    the other images have none. `truth` is bool (N, P): the image shows what the caption says and nothing else.
    """

    images: torch.Tensor
    prompts: list[str]
    truth: torch.Tensor


class PairDataset(Dataset[PairGroup]):
    """`length` groups of stream `seed`; group `i` is the same whatever the order, batch size or process.

    Args:
        art: The sprites.
        length: Number of groups.
        seed: Of the stream.
    """

    def __init__(self, art: EmojiArt, length: int, *, seed: int) -> None:
        self.art = art
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> PairGroup:
        rng = scene_rng(self.seed, index)
        prompt = sample_prompt(rng)
        if rng.random() < 0.3:  # the stream of training prompts leaves pairs of nouns out; a reward should know them
            prompt = hard_negative(prompt, rng)
        scene = place(prompt, rng)
        other = place(hard_negative(prompt, rng), rng)
        pictures = [compose(scene, self.art), compose(other, self.art), self._corrupted(scene, rng)]
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        return PairGroup(images, (scene, other))

    def _corrupted(self, scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The scene with one object replaced by a distractor."""
        spot = int(rng.integers(len(scene.objects)))
        others = tuple(thing for index, thing in enumerate(scene.objects) if index != spot)
        canvas = compose(Scene(scene.prompt, others), self.art).astype(np.float32) / 255
        left, top, right, bottom = scene.objects[spot].box
        patch = distractor(rng, self.art, right - left)
        alpha = patch[..., 3:]
        canvas[top:bottom, left:right] = alpha * patch[..., :3] + (1 - alpha) * canvas[top:bottom, left:right]
        return np.asarray(np.rint(canvas.clip(0, 1) * 255), dtype=np.uint8)


def collate_pairs(groups: Sequence[PairGroup]) -> PairBatch:
    """Joins groups: scenes first, then the hard negatives, then the corrupted ones, which no caption fits."""
    scenes = [group.scenes[place] for place in (0, 1) for group in groups]
    images = torch.cat([torch.stack([group.images[place] for group in groups]) for place in (0, 1, 2)])
    truth = torch.zeros(len(images), len(scenes), dtype=torch.bool)
    contents = [sorted(thing.noun for thing in scene.objects) for scene in scenes]
    for column, scene in enumerate(scenes):
        for row, other in enumerate(scenes):  # most pairs differ in their nouns: the full rule is for the rest
            truth[row, column] = contents[row] == contents[column] and fulfills(other, scene.prompt)
    return PairBatch(images=images, prompts=[scene.prompt.text for scene in scenes], truth=truth)


class EmojiPairsDataModule(LightningDataModule):
    """Groups for contrastive training, drawn without end.

    Args:
        data_dir: Where the emoji art is.
        batch_size: Groups in a batch; each has three images and two captions.
        num_groups: Groups in a training epoch.
        num_val_groups: Groups of the validation stream.
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
        num_val_groups: int = 256,
        seed: int = 300_000,
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
        self.seed = seed
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Reads the art."""
        art = load_art(self.data_dir)
        self.train_set = PairDataset(art, self.num_groups, seed=self.seed)
        self.val_set = PairDataset(art, self.num_val_groups, seed=self.seed + 1)

    def train_dataloader(self) -> DataLoader[PairGroup]:
        """Shuffled batches of `PairBatch`."""
        return DataLoader(
            self.train_set,
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
            collate_fn=collate_pairs,
        )

    def val_dataloader(self) -> DataLoader[PairGroup]:
        """The validation stream, in order."""
        return DataLoader(
            self.val_set, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=collate_pairs
        )
