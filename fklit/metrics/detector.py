"""A small CenterNet that finds the objects of an image, and the judge that compares them with a prompt."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit.metrics.geneval import FoundObject, Verdict, judge_objects

STRIDE = 4


class _Residual(nn.Module):
    """Two normalized 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.silu(self.norm1(self.first(x)))
        return F.silu(self.norm2(self.second(inner)) + self.shortcut(x))


class CenterDetector(nn.Module):
    """A CenterNet: objects are peaks of one heat map a class, with offsets and sizes (Zhou et al. 2019).

    See arXiv:1904.07850. Convolutions down to a 16th of the image and back up to a quarter, joined by addition.

    Args:
        num_classes: Number of classes.
        widths: Channels at a half, quarter, eighth and sixteenth of the image; multiples of 8.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = (24, 48, 80, 112)) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = widths
        self.stem = nn.Conv2d(3, half, 3, stride=2, padding=1)
        self.down4 = nn.Sequential(_Residual(half, quarter, 2), _Residual(quarter, quarter))
        self.down8 = nn.Sequential(_Residual(quarter, eighth, 2), _Residual(eighth, eighth))
        self.down16 = nn.Sequential(_Residual(eighth, sixteenth, 2), _Residual(sixteenth, sixteenth))
        self.up8 = nn.Conv2d(sixteenth, eighth, 1)
        self.join8 = _Residual(eighth, eighth)
        self.up4 = nn.Conv2d(eighth, quarter, 1)
        self.join4 = _Residual(quarter, quarter)
        self.heat = nn.Conv2d(quarter, num_classes, 1)
        self.geometry = nn.Conv2d(quarter, 4, 1)
        nn.init.constant_(self.heat.bias, -4.6)  # type: ignore[arg-type]  # a peak is rare: start at p = 0.01

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, Tensor]:
        """Heat map logits (n, classes, h/4, w/4) and geometry (n, 4, h/4, w/4) of images in [0, 1].

        The geometry is the center's offset from the cell's corner (x, y) and the box's width and height, all in cells
        of 4 pixels.
        """
        quarter = self.down4(F.silu(self.stem(images * 2 - 1)))
        eighth = self.down8(quarter)
        deep = self.down16(eighth)
        eighth = self.join8(eighth + F.interpolate(self.up8(deep), scale_factor=2, mode="nearest"))
        quarter = self.join4(quarter + F.interpolate(self.up4(eighth), scale_factor=2, mode="nearest"))
        return self.heat(quarter), self.geometry(quarter)


def decode(
    heat: Float[Tensor, "n c h w"],
    geometry: Float[Tensor, "n 4 h w"],
    *,
    classes: Sequence[tuple[str, str | None]],
    threshold: float,
    min_distance: float,
) -> list[tuple[FoundObject, ...]]:
    """Peaks of the heat maps as objects.

    Args:
        heat: Logits.
        geometry: Offsets and sizes in cells, see `CenterDetector`.
        classes: (noun, color) of each class.
        threshold: Lowest probability of a peak.
        min_distance: Of two peaks whose centers are nearer than this, in pixels, the more probable one stays.

    Returns:
        For each image its objects, most probable first.
    """
    chance = heat.float().sigmoid().amax(1)  # two classes do not share a center
    kind = heat.argmax(1)
    peaks = (chance >= threshold) & (chance == F.max_pool2d(chance, 3, stride=1, padding=1))
    results: list[tuple[FoundObject, ...]] = []
    for index in range(len(heat)):
        candidates = []
        for row, column in peaks[index].nonzero().tolist():
            dx, dy, width, height = geometry[index, :, row, column].float().tolist()
            x, y = (column + dx) * STRIDE, (row + dy) * STRIDE
            half = (max(width, 0.25) * STRIDE / 2, max(height, 0.25) * STRIDE / 2)
            noun, color = classes[int(kind[index, row, column])]
            box = (x - half[0], y - half[1], x + half[0], y + half[1])
            candidates.append(((x, y), FoundObject(noun, color, box, float(chance[index, row, column]))))
        kept: list[tuple[tuple[float, float], FoundObject]] = []
        for center, item in sorted(candidates, key=lambda pair: -pair[1].score):
            if all((center[0] - x) ** 2 + (center[1] - y) ** 2 >= min_distance**2 for (x, y), _ in kept):
                kept.append((center, item))
        results.append(tuple(item for _, item in kept))
    return results


class Judge(nn.Module):
    """Finds the objects of images and says whether they are what a prompt asks for. It judges, and is never a reward.

    Args:
        folder: Folder with `config.json` and `model.safetensors`; None for the model that ships with fklit, which
            knows the emoji scenes. Weights are loaded at first use.
        max_batch: Most images at once.
    """

    _place: Tensor

    def __init__(self, folder: str | None = None, *, max_batch: int = 256) -> None:
        super().__init__()
        if max_batch < 1:
            raise ValueError(f"expected max_batch of at least 1, got {max_batch}; give an integer.")
        self.folder = folder
        self.max_batch = max_batch
        self.detector: CenterDetector | None = None
        self.settings: dict[str, Any] = {}
        self.register_buffer("_place", torch.empty(0), persistent=False)

    def load(self) -> CenterDetector:
        """Loads the weights, once."""
        if self.detector is None:
            from safetensors.torch import load_file

            from fklit import assets

            folder = Path(self.folder) if self.folder is not None else assets.path("emoji_judge")
            self.settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                detector = CenterDetector(len(self.settings["classes"]), self.settings["widths"])
                detector.load_state_dict(load_file(folder / "model.safetensors"))
                self.detector = detector.requires_grad_(False).eval().to(self._place.device)
        return self.detector

    @torch.no_grad()
    def find(self, images: Float[Tensor, "n 3 h w"]) -> list[tuple[FoundObject, ...]]:
        """The objects of each image (values in [0, 1], sides divisible by 16).

        Raises:
            ValueError: The images are not (n, 3, h, w) floats with sides divisible by 16.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 16 or images.shape[3] % 16:
            raise ValueError(
                f"expected images (n, 3, h, w) with sides divisible by 16, got {tuple(images.shape)}; resize them."
            )
        detector = self.load()
        results: list[tuple[FoundObject, ...]] = []
        for start in range(0, len(images), self.max_batch):
            chunk = images[start : start + self.max_batch]
            heat, geometry = detector(chunk.to(self._place.device, torch.float32))
            results += decode(
                heat,
                geometry,
                classes=[tuple(pair) for pair in self.settings["classes"]],
                threshold=self.settings["threshold"],
                min_distance=self.settings["min_distance"],
            )
        return results

    def judge(self, images: Float[Tensor, "n 3 h w"], metadata: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Judges each image against the GenEval metadata of its prompt.

        Args:
            images: Images in [0, 1].
            metadata: One line of metadata an image.

        Returns:
            One verdict an image.

        Raises:
            ValueError: The numbers of images and lines differ.
        """
        if len(metadata) != len(images):
            raise ValueError(
                f"expected metadata for each of {len(images)} images, got {len(metadata)}; give one line each."
            )
        return [judge_objects(found, line) for found, line in zip(self.find(images), metadata, strict=True)]
