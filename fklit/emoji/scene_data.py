"""The emoji scenes as a LightningDataModule."""

from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fklit.emoji.art import EmojiArt, load_art
from fklit.emoji.scenes import Scene, caption, compose, sample_crowd, sample_scene, scene_rng


class SceneItem(TypedDict):
    """One training example: an image in [0, 1], float32 `(3, 64, 64)`, and its caption."""

    image: torch.Tensor
    prompt: str


def to_tensor(picture: npt.NDArray[np.uint8]) -> torch.Tensor:
    """A uint8 image `(H, W, 3)` as float32 `(3, H, W)` in [0, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255.0


class SceneDataset(Dataset[SceneItem]):
    """`length` scenes of stream `seed`; item `i` is the same whatever the order, the batch size or the process.

    Args:
        art: The sprites.
        length: Number of scenes.
        seed: Of the stream; two streams share no draw.
        crowd_share: Share of the scenes that are four unrelated objects with an empty caption (see `sample_crowd`).
    """

    def __init__(self, art: EmojiArt, length: int, *, seed: int = 0, crowd_share: float = 0.0) -> None:
        self.art = art
        self.length = length
        self.seed = seed
        self.crowd_share = crowd_share

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene | None:
        """Scene `index`, or None when that place is taken by a crowd, which has no caption."""
        if scene_rng(self.seed, index).random() < self.crowd_share:
            return None
        return sample_scene(self.seed, index)

    def __getitem__(self, index: int) -> SceneItem:
        scene = self.scene(index)
        if scene is None:
            return SceneItem(image=to_tensor(compose(sample_crowd(self.seed, index), self.art)), prompt="")
        return SceneItem(image=to_tensor(compose(scene, self.art)), prompt=caption(scene))


class EmojiScenesDataModule(LightningDataModule):
    """Captioned emoji scenes, drawn without end; object pairs that are held out never come.

    Fetch the art once with `python -m fklit.data fetch emoji`.

    Args:
        data_dir: Where the emoji art is.
        batch_size: Scenes in a batch.
        num_scenes: Scenes in a training epoch.
        num_val_scenes: Scenes of the validation stream.
        crowd_share: Share of the training scenes that are four unrelated objects without a caption, which fill the
            canvas: an autoencoder learns more from them than from white. In [0, 1].
        seed: Of the training stream; validation uses `seed + 1`.
        num_workers: Processes that draw scenes.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: The art has not been fetched (raised by `setup`).
    """

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        num_scenes: int = 100_000,
        num_val_scenes: int = 256,
        crowd_share: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("num_scenes", num_scenes), ("num_val_scenes", num_val_scenes)):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        if not 0.0 <= crowd_share <= 1.0:
            raise ValueError(f"expected crowd_share in [0, 1], got {crowd_share}; give a share.")
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.num_scenes = num_scenes
        self.num_val_scenes = num_val_scenes
        self.crowd_share = crowd_share
        self.seed = seed
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Reads the art."""
        art = load_art(self.data_dir)
        self.train_set = SceneDataset(art, self.num_scenes, seed=self.seed, crowd_share=self.crowd_share)
        self.val_set = SceneDataset(art, self.num_val_scenes, seed=self.seed + 1)

    def train_dataloader(self) -> DataLoader[SceneItem]:
        """Batches `{"image": (N, 3, 64, 64) in [0, 1], "prompt": list of str}`."""
        return DataLoader(
            self.train_set, batch_size=self.batch_size, shuffle=True, drop_last=True, num_workers=self.num_workers
        )

    def val_dataloader(self) -> DataLoader[SceneItem]:
        """The validation stream, in order."""
        return DataLoader(self.val_set, batch_size=self.batch_size, num_workers=self.num_workers)
