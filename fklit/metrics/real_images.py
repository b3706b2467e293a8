"""Real images to compare samples with: a folder of files, or the batches of a data module."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning.pytorch import LightningDataModule
from torch import Tensor

Split = Literal["train", "val", "test"]

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_AT_ONCE = 64  # files of one size that are read before the first is used
_KEYS = ("image", "images", "pixel_values")


def real_images(
    real: str | Path | LightningDataModule,
    split: Split = "train",
    *,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Float[Tensor, "n 3 h w"]]:
    """Batches of images in [0, 1], this process's share of them.

    The files of a folder are shared out in order of their paths. The batches of a data module, which may come in
    another order on every process, all go to the first one.

    Args:
        real: A folder, searched with those below it for bmp, jpg, png and webp files; or a data module whose batches
            are images, begin with them, or have them under "image", "images" or "pixel_values".
        split: Of a data module.
        limit: So many images at most, on all processes together; None for all.
        rank: Number of this process.
        world_size: How many there are.

    Raises:
        ValueError: There are no images, or a batch has none in [0, 1].
    """
    if isinstance(real, LightningDataModule):
        yield from _of_module(real, split, limit) if rank == 0 else ()
        return
    folder = Path(real).expanduser()
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)[:limit]
    if not files:
        raise ValueError(f"expected a folder of real images (bmp, jpg, png, webp), got none in {folder}; fix the path.")
    together: list[Tensor] = []
    for path in files[rank::world_size]:
        image = _read(path)
        if together and (image.shape != together[0].shape or len(together) == _AT_ONCE):
            yield torch.stack(together)
            together = []
        together.append(image)
    if together:
        yield torch.stack(together)


def _read(path: Path) -> Float[Tensor, "3 h w"]:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _of_module(module: LightningDataModule, split: Split, limit: int | None) -> Iterator[Tensor]:
    module.prepare_data()
    module.setup("test" if split == "test" else "fit")
    loader: Any = getattr(module, f"{split}_dataloader")()
    left = limit
    for batch in _batches(loader):
        images = _images_in(batch, module)
        images = images if left is None else images[:left]
        left = None if left is None else left - len(images)
        if len(images):
            yield images
        if left == 0:
            return


def _batches(loader: Any) -> Iterable[Any]:
    loaders = loader.values() if isinstance(loader, Mapping) else loader if isinstance(loader, list) else [loader]
    for part in loaders:
        yield from part


def _images_in(batch: Any, module: LightningDataModule) -> Tensor:
    found = batch
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in _KEYS if key in batch), None)
    elif isinstance(batch, list | tuple) and batch:
        found = batch[0]
    if not isinstance(found, Tensor) or found.ndim != 4 or not found.is_floating_point():
        got = sorted(batch) if isinstance(batch, Mapping) else type(found).__name__
        raise ValueError(
            f"expected batches of {type(module).__name__} with float images (n, 3, h, w) in [0, 1] (under 'image'), "
            f"got {got}; give a folder of images in its place."
        )
    return found
