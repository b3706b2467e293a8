"""Training of the detector: objects as center points, on degraded emoji images with distractors in them."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.atomic import write_json_atomically
from fklit.emoji.objects import OBJECTS
from fklit.emoji.training.center_points import center_targets, focal_loss, same_objects
from fklit.emoji.training.degrade import Degrade
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.metrics.detector import CenterDetector, decode
from fklit.metrics.geneval import FoundObject, judge_objects

_CLASSES = [(thing.noun, thing.color) for thing in OBJECTS]


class DetectorTask(LightningModule):
    """Trains `fklit.metrics.detector.CenterDetector` and writes the folder that `fklit.metrics.Judge` reads.

    Args:
        widths: Channels of the network.
        degrade: What is done to the training images; mild enough that a person would still name every object.
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
        save_hyperparameters(self)
        if not 0 < threshold < 1:
            raise ValueError(f"expected threshold in (0, 1), got {threshold}; give a probability.")
        if learning_rate <= 0 or min_distance < 0:
            raise ValueError(
                f"expected learning_rate above 0 and min_distance of at least 0, got {learning_rate}, {min_distance}; "
                "change the one that is outside."
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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights of a checkpoint go before those to start from."""
        self.start_from = None

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
        """Logs `val/wrong`: the share of images with an object missed, invented, or more than 6 pixels off."""
        images = batch["image"]
        if self.degrade.vae_folder is not None:
            images = self.degrade.reconstruct(images)
        found = self._find(images)
        wrong = 0
        for objects, classes, boxes in zip(found, batch["classes"], batch["boxes"], strict=True):
            truth = [(_CLASSES[int(kind)], box.tolist()) for kind, box in zip(classes, boxes, strict=True) if kind >= 0]
            wrong += not same_objects([((item.noun, item.color), item.box) for item in objects], truth)
        self.log("val/wrong", wrong / len(found), batch_size=len(found), prog_bar=True, sync_dist=True)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Judges the evaluation set: real scenes, through the autoencoder if there is one, for two prompts each.

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
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
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
        write_json_atomically(target / "config.json", settings, indent=1)
