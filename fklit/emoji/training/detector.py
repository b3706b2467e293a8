"""Training of the judge's eye: objects as center points, on degraded emoji pictures with distractor in them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.emoji.objects import OBJECTS
from fklit.emoji.training.degrade import Degrade
from fklit.learning_rate import warmup_cosine
from fklit.metrics.detector import STRIDE, CenterDetector, decode
from fklit.metrics.geneval import FoundObject, judge_objects

_CLASSES = [(thing.noun, thing.color) for thing in OBJECTS]


def center_targets(
    classes: Int[Tensor, "n k"], boxes: Float[Tensor, "n k 4"], *, num_classes: int, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Heat maps with a Gaussian at each object's center, and where which geometry is wanted.

    Args:
        classes: Class of each object, -1 for none.
        boxes: Left, top, right, bottom in pixels.
        num_classes: Number of classes.
        side: Side of the heat map, in cells of `STRIDE` pixels.

    Returns:
        Heat maps (n, classes, side, side), 1 at the cell of a center, deviation an eighth of the box; the geometry
        (m, 4) of the m objects; their places (m, 3) as picture, row, column.
    """
    count = len(classes)
    heat = torch.zeros(count, num_classes, side, side)
    picture, slot = (classes >= 0).nonzero(as_tuple=True)
    chosen = boxes[picture, slot] / STRIDE
    center = (chosen[:, :2] + chosen[:, 2:]) / 2
    size = chosen[:, 2:] - chosen[:, :2]
    cell = center.long().clamp(0, side - 1)
    axis = torch.arange(side)
    spread = (size / 8).clamp(min=0.5)
    along = torch.exp(-0.5 * ((axis - cell[:, :, None]) / spread[:, :, None]) ** 2)
    bumps = along[:, 1, :, None] * along[:, 0, None, :]
    for index, (where, kind) in enumerate(zip(picture.tolist(), classes[picture, slot].tolist(), strict=True)):
        heat[where, kind] = torch.maximum(heat[where, kind], bumps[index])
    return heat, torch.cat([center - cell, size], 1), torch.stack([picture, cell[:, 1], cell[:, 0]], 1)


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Zhou et al. 2019 (arXiv:1904.07850), equation 1, with alpha = 2 and beta = 4; a sum over all entries."""
    chance = logits.sigmoid()
    hit = (1 - chance).square() * F.logsigmoid(logits)
    miss = (1 - heat) ** 4 * chance.square() * F.logsigmoid(-logits)
    return -torch.where(heat == 1, hit, miss).sum()


class DetectorTask(LightningModule):
    """Trains `fklit.metrics.detector.CenterDetector` and writes it as the judge's folder.

    Args:
        widths: Channels of the network.
        degrade: What is done to the training pictures; mild enough that a person would still name every object.
        threshold: Lowest probability of an object, kept with the weights.
        min_distance: Smallest distance of two objects' centers in pixels, kept with the weights.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        start_from: `model.safetensors` to start from; None for random weights.
        export_dir: Folder to write at the end of `fit`; None for none.

    Batches are those of `fklit.emoji.boxes.EmojiBoxesDataModule`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (24, 48, 80, 112),
        degrade: Degrade | None = None,
        *,
        threshold: float = 0.4,
        min_distance: float = 10.0,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        start_from: str | None = None,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold} was given; give a probability between 0 and 1.")
        if learning_rate <= 0 or min_distance < 0:
            raise ValueError(
                f"learning_rate={learning_rate} and min_distance={min_distance} were given; the first must be positive "
                "and the second not negative."
            )
        self.widths = tuple(widths)
        self.degrade = degrade or Degrade()
        self.threshold, self.min_distance = threshold, min_distance
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.start_from, self.export_dir = start_from, export_dir
        self.detector = CenterDetector(len(_CLASSES), self.widths)

    def setup(self, stage: str) -> None:
        """Loads the weights to start from."""
        if self.start_from is not None:
            from safetensors.torch import load_file

            self.detector.load_state_dict(load_file(self.start_from))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """One step; logs `train/heat` and `train/geometry`."""
        heat, geometry = self.detector(self.degrade(batch["image"]))
        target, wanted, places = center_targets(
            batch["classes"].cpu(), batch["boxes"].cpu(), num_classes=len(_CLASSES), side=heat.shape[-1]
        )
        number = max(len(wanted), 1)
        heat_loss = focal_loss(heat.float(), target.to(heat.device)) / number
        picture, row, column = places.to(heat.device).T
        off = (geometry.float()[picture, :, row, column] - wanted.to(heat.device)).abs().sum() / number
        self.log_dict({"train/heat": heat_loss, "train/geometry": off})
        loss: Tensor = heat_loss + 0.1 * off
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Logs `val/wrong`: the share of pictures with an object missed, invented, or more than 6 pixels off."""
        images = batch["image"]
        if self.degrade.vae_folder is not None:
            images = self.degrade.reconstruct(images)
        found = self._find(images)
        wrong = 0
        for objects, classes, boxes in zip(found, batch["classes"], batch["boxes"], strict=True):
            truth = [(_CLASSES[int(kind)], box.tolist()) for kind, box in zip(classes, boxes, strict=True) if kind >= 0]
            wrong += not _same([((item.noun, item.color), item.box) for item in objects], truth)
        self.log("val/wrong", wrong / len(found), batch_size=len(found), prog_bar=True, sync_dist=True)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The exam: real scenes, through the autoencoder if there is one, judged for a right and a wrong prompt each.

        Logs `test/missed` (right, and judged wrong), `test/fooled` (wrong, and judged exactly right),
        `test/extra` (an object too many was found, or one missed) and `test/error`, the share of scenes with any
        of the first two.
        """
        images = batch["image"]
        if self.degrade.vae_folder is not None:
            images = self.degrade.reconstruct(images)
        found = self._find(images)
        right = [judge_objects(objects, line) for objects, line in zip(found, batch["metadata"], strict=True)]
        wrong = [judge_objects(objects, line) for objects, line in zip(found, batch["wrong"], strict=True)]
        missed = torch.tensor([not verdict.correct for verdict in right])
        fooled = torch.tensor([verdict.exact for verdict in wrong])
        rates = {
            "test/missed": missed,
            "test/fooled": fooled,
            "test/extra": torch.tensor([not verdict.exact for verdict in right]),
            "test/error": missed | fooled,
        }
        self.log_dict({name: each.float().mean() for name, each in rates.items()}, batch_size=len(found))

    def _find(self, images: Tensor) -> list[tuple[FoundObject, ...]]:
        heat, geometry = self.detector(images)
        return decode(heat, geometry, classes=_CLASSES, threshold=self.threshold, min_distance=self.min_distance)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.AdamW(self.detector.parameters(), lr=self.learning_rate, weight_decay=0.02)
        schedule = warmup_cosine(optimizer, self.warmup_steps, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Writes the judge's folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` (float16), as `fklit.metrics.Judge` reads them."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().half().contiguous() for name, value in self.detector.state_dict().items()}
        save_file(weights, target / "model.safetensors")
        settings = {
            "classes": _CLASSES,
            "widths": self.widths,
            "threshold": self.threshold,
            "min_distance": self.min_distance,
        }
        (target / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _same(found: list[Any], truth: list[Any], reach: float = 6.0) -> bool:
    """Whether both hold the same classes with centers within `reach` pixels (both ways, one to one)."""
    left = list(truth)
    for kind, box in found:
        near = [item for item in left if item[0] == kind and _center_distance(item[1], box) <= reach]
        if not near:
            return False
        left.remove(min(near, key=lambda item: _center_distance(item[1], box)))
    return not left


def _center_distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2
