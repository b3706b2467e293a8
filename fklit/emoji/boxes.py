"""Emoji scenes with boxes, for training a detector: any arrangement, and distractors that are not objects."""

from typing import TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fklit.emoji.art import STYLES, EmojiArt, Style, load_art
from fklit.emoji.distractors import Pixels, distractor, sprite_pixels, warp
from fklit.emoji.evaluation_set import EvaluationDataset, EvaluationItem, collate_evaluation
from fklit.emoji.objects import OBJECTS
from fklit.emoji.scenes import IMAGE_SIZE, place, sample_prompt, scene_rng

Box = tuple[int, int, int, int]
MAX_OBJECTS = 6
_CLASS_OF = {thing.name: index for index, thing in enumerate(OBJECTS)}


class BoxItem(TypedDict):
    """An image in [0, 1], float32 (3, 64, 64), and its objects.

    `classes` is int64 (6,), the index in `OBJECTS`, -1 where there is no object; `boxes` float32 (6, 4), left,
    top, right, bottom in pixels.
    """

    image: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor


class BoxDataset(Dataset[BoxItem]):
    """`length` images of stream `seed`; item `i` is the same whatever the order, batch size or process.

    Half of them are scenes of the prompts; the others hold up to five objects anywhere, in one or both styles, any
    pairs, 22 to 34 pixels large. `distractor_share` of all images get one or two distractor patches where they fit,
    and 0.4 times as many of the objects are replaced by distractors. A third of the objects are warped a little,
    by up to 6 % of their size, as generators do.

    Args:
        art: The sprites.
        length: Number of images.
        seed: Of the stream.
        distractor_share: In [0, 1].
    """

    def __init__(self, art: EmojiArt, length: int, *, seed: int = 0, distractor_share: float = 0.5) -> None:
        self.art = art
        self.length = length
        self.seed = seed
        self.distractor_share = distractor_share

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> BoxItem:
        rng = scene_rng(self.seed, index)
        canvas = np.ones((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
        objects: list[tuple[int, Box]] = []
        taken: list[Box] = []
        if rng.random() < 0.5:
            for thing in place(sample_prompt(rng), rng).objects:
                taken.append(thing.box)
                self._draw(canvas, objects, (thing.name, thing.style, thing.box), rng)
        else:
            self._scatter(canvas, objects, taken, rng)
        if rng.random() < self.distractor_share:
            for _ in range(int(rng.integers(1, 3))):
                free = free_box(rng, taken, int(rng.integers(16, 35)))
                if free is not None:
                    self._paint(canvas, distractor(rng, self.art, free[2] - free[0]), free)
                    taken.append(free)
        classes = torch.full((MAX_OBJECTS,), -1, dtype=torch.int64)
        boxes = torch.zeros(MAX_OBJECTS, 4)
        for row, (kind, box) in enumerate(objects):
            classes[row] = kind
            boxes[row] = torch.tensor(box, dtype=torch.float32)
        return BoxItem(image=torch.from_numpy(canvas).permute(2, 0, 1).contiguous(), classes=classes, boxes=boxes)

    def _scatter(
        self, canvas: Pixels, objects: list[tuple[int, Box]], taken: list[Box], rng: np.random.Generator
    ) -> None:
        style, mixed = STYLES[int(rng.integers(len(STYLES)))], rng.random() < 0.3
        for _ in range(int(rng.integers(0, 6))):
            box = free_box(rng, taken, int(rng.integers(22, 35)))
            if box is None:
                return
            # A repeated look now and then: counting is about equal objects side by side.
            repeat = objects and rng.random() < 0.4
            kind = objects[-1][0] if repeat else int(rng.integers(len(OBJECTS)))
            style = STYLES[int(rng.integers(len(STYLES)))] if mixed else style
            taken.append(box)
            self._draw(canvas, objects, (OBJECTS[kind].name, style, box), rng)

    def _draw(
        self, canvas: Pixels, objects: list[tuple[int, Box]], thing: tuple[str, Style, Box], rng: np.random.Generator
    ) -> None:
        """Paints an object and notes it, or paints a distractor in its place."""
        name, style, box = thing
        size = box[2] - box[0]
        if rng.random() < 0.4 * self.distractor_share:
            self._paint(canvas, distractor(rng, self.art, size), box)
            return
        patch = sprite_pixels(self.art, name, style, size)
        if rng.random() < 1 / 3:
            patch = warp(patch, rng, float(rng.uniform(0.01, 0.06)))
        self._paint(canvas, patch, box)
        objects.append((_CLASS_OF[name], box))

    @staticmethod
    def _paint(canvas: Pixels, patch: Pixels, box: Box) -> None:
        left, top, right, bottom = box
        alpha = patch[..., 3:]
        canvas[top:bottom, left:right] = alpha * patch[..., :3] + (1 - alpha) * canvas[top:bottom, left:right]


def free_box(rng: np.random.Generator, taken: list[Box], size: int) -> Box | None:
    """A box that overlaps none of `taken` by more than two pixels, or None after 20 tries."""
    for _ in range(20):
        left, top = (int(v) for v in rng.integers(0, IMAGE_SIZE - size + 1, 2))
        box = (left, top, left + size, top + size)
        if all(_gap(box, other) >= -2 for other in taken):
            return box
    return None


def _gap(a: Box, b: Box) -> int:
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


class EmojiBoxesDataModule(LightningDataModule):
    """Emoji images with boxes, drawn without end.

    Args:
        data_dir: Where the emoji art is.
        batch_size: Images in a batch.
        num_images: Images in a training epoch.
        num_val_images: Images of the validation stream, without distractors.
        num_test_images: Scenes of the evaluation set, see `fklit.emoji.evaluation_set.EvaluationDataset`.
        distractor_share: Share of the training images with distractor patches, in [0, 1].
        seed: Of the training stream; validation uses `seed + 1`, the evaluation set `seed + 2`.
        num_workers: Processes that draw images.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: The art has not been fetched (raised by `setup`).
    """

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        num_images: int = 100_000,
        num_val_images: int = 512,
        num_test_images: int = 1000,
        distractor_share: float = 0.5,
        seed: int = 700_000,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"num_images": num_images, "num_val_images": num_val_images, "num_test_images": num_test_images}
        for name, value in {"batch_size": batch_size, **sizes}.items():
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        if not 0 <= distractor_share <= 1:
            raise ValueError(f"expected distractor_share in [0, 1], got {distractor_share}; give a share.")
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.num_images = num_images
        self.num_val_images = num_val_images
        self.num_test_images = num_test_images
        self.distractor_share = distractor_share
        self.seed = seed
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Reads the art."""
        art = load_art(self.data_dir)
        self.train_set = BoxDataset(art, self.num_images, seed=self.seed, distractor_share=self.distractor_share)
        self.val_set = BoxDataset(art, self.num_val_images, seed=self.seed + 1, distractor_share=0.0)
        self.test_set = EvaluationDataset(art, self.num_test_images, seed=self.seed + 2)

    def train_dataloader(self) -> DataLoader[BoxItem]:
        """Shuffled batches of `BoxItem`."""
        return DataLoader(
            self.train_set, batch_size=self.batch_size, shuffle=True, drop_last=True, num_workers=self.num_workers
        )

    def val_dataloader(self) -> DataLoader[BoxItem]:
        """The validation stream, in order."""
        return DataLoader(self.val_set, batch_size=self.batch_size, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[EvaluationItem]:
        """The evaluation set, in order."""
        return DataLoader(self.test_set, batch_size=self.batch_size, collate_fn=collate_evaluation)
