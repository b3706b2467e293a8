"""Labeled images, read a batch at a time: what a batch is, where its pixels come from, what is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from fklit.data.counter_random import random_bits

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


class ImageBatch(TypedDict):
    """N labeled images.

    Attributes:
        x: Images, normalized, float32 `(N, C, H, W)`.
        y: Classes from 0, int64 `(N,)`.
        index: Where each image is in the files of its split, int64 `(N,)`. It stays with the image in every order,
            subset, batch size and process, so it may seed random probes.
    """

    x: torch.Tensor
    y: torch.Tensor
    index: torch.Tensor


class Draw(NamedTuple):
    """A request for one batch: the epoch, which the augmentation depends on, and the places of the images."""

    epoch: int
    rows: Rows


class ImageSource(Protocol):
    """Stored images: their classes, and their pixels by row."""

    @property
    def labels(self) -> Rows:
        """Classes from 0, int64 `(n,)`."""
        ...

    def read(self, rows: Rows) -> Pixels:
        """Pixels of some rows, uint8 `(N, C, H, W)`."""
        ...


@dataclass(frozen=True)
class ImagesInMemory:
    """Images as one array, uint8 `(n, C, H, W)`, and their classes, int64 `(n,)`."""

    pixels: Pixels
    labels: Rows

    def read(self, rows: Rows) -> Pixels:
        """Pixels of some rows, uint8 `(N, C, H, W)`."""
        picked: Pixels = self.pixels[rows]
        return picked


@dataclass(frozen=True)
class Normalization:
    """`(pixel / full_scale - mean) / std`, channel by channel.

    Attributes:
        mean: Of each channel, in [0, 1].
        std: Of each channel, above 0.
        full_scale: The value of a white pixel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    full_scale: float = 255.0

    def __call__(self, pixels: Pixels) -> torch.Tensor:
        """Normalized images, float32, of the same shape `(N, C, H, W)`."""
        images = torch.from_numpy(pixels).float() / self.full_scale
        return (images - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)


@dataclass(frozen=True)
class FlipAndCrop:
    """Mirrors half of the images, pads every side and cuts the original size out anywhere.

    Attributes:
        padding: Pixels added to every side.
        fill: Their value, 0 to 255.
    """

    padding: int = 2
    fill: int = 0

    def __call__(self, pixels: Pixels, bits: npt.NDArray[np.uint64]) -> Pixels:
        """Augmented images; each is a function of its own pixels and bits only.

        Args:
            pixels: Images, uint8 `(N, C, H, W)`.
            bits: 64 random bits an image, `(N,)`.
        """
        height, width = pixels.shape[-2:]
        places = np.uint64(2 * self.padding + 1)
        flips = (bits & np.uint64(1)).astype(bool)
        tops = ((bits >> np.uint64(1)) % places).astype(np.int64)
        lefts = ((bits >> np.uint64(32)) % places).astype(np.int64)
        sides = (self.padding, self.padding)
        padded = np.pad(pixels, ((0, 0), (0, 0), sides, sides), constant_values=self.fill)
        rows = tops[:, None] + np.arange(height)
        columns = lefts[:, None] + np.arange(width)
        # Mirroring reads the same padded image from right to left.
        columns = np.where(flips[:, None], padded.shape[-1] - 1 - columns, columns)
        images = np.arange(len(pixels))[:, None, None]
        # The advanced indices come first in the result: (N, H, W, C).
        cropped = padded[images, :, rows[:, :, None], columns[:, None, :]]
        return np.ascontiguousarray(np.moveaxis(cropped, -1, 1))


class ImageDataset(Dataset[ImageBatch]):
    """Batches of labeled images by request; equal requests give equal bytes in every process.

    Args:
        source: The stored images.
        normalization: From bytes to numbers.
        augmentation: What is done to the pixels before, or None.
        seed: Of the augmentation.
    """

    def __init__(
        self,
        source: ImageSource,
        normalization: Normalization,
        *,
        augmentation: FlipAndCrop | None = None,
        seed: int = 0,
    ) -> None:
        self.source = source
        self.normalization = normalization
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, draw: Draw) -> ImageBatch:
        rows = draw.rows
        pixels = self.source.read(rows)
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, random_bits(self.seed, draw.epoch, rows))
        return ImageBatch(
            x=self.normalization(pixels),
            y=torch.from_numpy(self.source.labels[rows]),
            index=torch.from_numpy(rows.copy()),
        )

    def __getitems__(self, rows: Sequence[int]) -> ImageBatch:
        """What `DataLoader` asks for where it makes the batches itself; it is collated already."""
        return self[Draw(0, np.array(rows, dtype=np.int64))]
