"""Training of a latent reward: distilled from the shipped reward, then fitted to the mean of what runs came to."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from fklit.atomic import write_json_atomically
from fklit.emoji.latent_trajectory_data import LatentTrajectoryBatch
from fklit.emoji.training.frozen_pipeline import FrozenPipeline
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.rewards.image_reward import ImageReward
from fklit.rewards.latent_encoder import LatentEncoder, check_encoder
from fklit.rewards.latent_image_reward import calibrated_odds


class LatentRewardTask(LightningModule):
    """Trains a `LatentEncoder` and writes a folder that `fklit.rewards.LatentImageReward` loads.

    First the encoder learns to give the image tokens that the reward's own encoder gives of the decoded prediction
    (mean square). Then it is fitted with its reader, which stays as it is: binary cross-entropy of `q` against
    `P^exponent`, P(match) of the picture that the run came to. This loss is proper for a number in [0, 1]: its minimum
    is `q = E[P^exponent | x_t]`, so `exp(exponent * score)` of `score = log(q) / exponent` is the conditional mean that
    a potential asks for (Singhal et al. 2025, arXiv:2501.06848, section 3.2).

    Args:
        reward: An `ImageReward` with log probabilities, whose text encoder and head read the tokens.
        pipeline: Folder of the generator, or "fklit:NAME", whose decoder shows what is distilled.
        channels: Of the encoder, multiples of 8.
        blocks: Residual blocks at either size.
        latents: Shape of a latent.
        exponent: Of P, above 0: the `reward_scale` that the reward shall be exact for.
        distill_steps: Optimizer steps of the first part.
        distill_rows: Predictions of a batch that are decoded in them.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        export_dir: Folder to write at the end of `fit`; None for none.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        reward: str = "fklit:emoji_reward",
        pipeline: str = "fklit:emoji_scenes",
        *,
        channels: tuple[int, int] = (64, 128),
        blocks: tuple[int, int] = (2, 1),
        latents: tuple[int, int, int] = (4, 16, 16),
        exponent: float = 8.0,
        distill_steps: int = 250,
        distill_rows: int = 32,
        learning_rate: float = 2e-3,
        warmup_steps: int = 30,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        check_encoder(channels, blocks)
        if exponent <= 0 or learning_rate <= 0 or distill_steps < 0 or distill_rows < 1:
            raise ValueError(
                "expected exponent and learning_rate above 0, distill_steps of at least 0 and distill_rows of at least "
                f"1, got {exponent}, {learning_rate}, {distill_steps} and {distill_rows}; change the one outside."
            )
        self.reward_name, self.exponent = reward, exponent
        self.distill_steps, self.distill_rows = distill_steps, distill_rows
        self.learning_rate, self.warmup_steps, self.export_dir = learning_rate, warmup_steps, export_dir
        # In lists, so that checkpoints and optimizers do not see them
        self._reader = [ImageReward(reward)]
        self._pipeline = [FrozenPipeline(pipeline)]
        self._reader[0].load()
        width = self._reader[0].network.vision.config.hidden_size
        self.notes: dict[str, Any] = {
            "kind": "latent_image_reward",
            "reward": reward,
            "pipeline": pipeline,
            "exponent": float(exponent),
            "latents": list(latents),
            "encoder": {
                "in_channels": latents[0],
                "channels": list(channels),
                "width": int(width),
                "blocks": list(blocks),
            },
        }
        self.encoder = LatentEncoder(**self.notes["encoder"])
        self._seen: list[tuple[Tensor, Tensor, Tensor, list[str]]] = []

    @property
    def reader(self) -> ImageReward:
        """The reward, on the device of this module."""
        reader = self._reader[0]
        return reader if reader.device == self.device else reader.to(self.device)

    def log_odds(self, latents: Tensor, time: Tensor, captions: list[str]) -> Tensor:
        """Log odds (n,) of `q`."""
        tokens, calibration = self.encoder(latents, time)
        return calibrated_odds(self.reader, tokens, calibration, captions)

    def training_step(self, batch: LatentTrajectoryBatch, batch_idx: int) -> Tensor:
        """One step; logs the loss under `train/`."""
        if self.global_step < self.distill_steps:
            loss, name = self._distill(batch), "distill"
        else:
            odds = self.log_odds(batch["latents"], batch["time"], batch["captions"])
            loss, name = F.binary_cross_entropy_with_logits(odds, batch["chance"] ** self.exponent), "loss"
        self.log(f"train/{name}", loss.detach(), prog_bar=True)
        return loss

    def _distill(self, batch: LatentTrajectoryBatch) -> Tensor:
        """Mean square to the tokens of the decoded predictions, in units of their spread."""
        latents, time = batch["latents"][: self.distill_rows], batch["time"][: self.distill_rows]
        with torch.no_grad():
            frozen = self._pipeline[0]
            wanted = self.reader.see(frozen.decode(frozen.load(self.device), latents).float())
        tokens, _ = self.encoder(latents, time)
        return F.mse_loss(tokens, wanted) / wanted.var()

    def validation_step(self, batch: LatentTrajectoryBatch, batch_idx: int) -> None:
        """Logs `val/loss`; scores are kept for their correlation."""
        odds = self.log_odds(batch["latents"], batch["time"], batch["captions"])
        loss = F.binary_cross_entropy_with_logits(odds, batch["chance"] ** self.exponent)
        self.log("val/loss", loss, batch_size=len(odds), prog_bar=True, sync_dist=True)
        self._seen.append((odds, batch["chance"], batch["time"], batch["captions"]))

    def on_validation_epoch_end(self) -> None:
        """Logs `val/spearman_NN`: rank correlation with the final P within prompts, at time NN / 100, on average."""
        if not self._seen:
            return
        odds, chance, time = (torch.cat([row[part] for row in self._seen]) for part in range(3))  # type: ignore[misc]
        captions = [caption for row in self._seen for caption in row[3]]
        self._seen.clear()
        for number, found in spearman_by_time(odds, chance, time, captions).items():
            self.log(f"val/spearman_{round(100 * number):02d}", found)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.AdamW(self.encoder.parameters(), lr=self.learning_rate, weight_decay=0.02)
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` (float16), as `LatentImageReward` reads them."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().half().cpu().contiguous() for name, value in self.encoder.state_dict().items()}
        save_file(weights, target / "model.safetensors")
        write_json_atomically(target / "config.json", self.notes, indent=1)


def spearman_by_time(scores: Tensor, chance: Tensor, time: Tensor, captions: list[str]) -> dict[float, float]:
    """Rank correlation of scores with the final chance within captions, averaged over these, at each time.

    Captions whose chances are all equal have none.

    Args:
        scores: (n,).
        chance: (n,).
        time: (n,).
        captions: n texts.
    """
    found: dict[float, list[float]] = {}
    places: dict[tuple[float, str], list[int]] = {}
    for index, (when, caption) in enumerate(zip(time.tolist(), captions, strict=True)):
        places.setdefault((when, caption), []).append(index)
    for (when, _), rows in places.items():
        first, second = scores[rows].double(), chance[rows].double()
        if len(rows) > 1 and float(first.std()) > 0 and float(second.std()) > 0:
            found.setdefault(when, []).append(float(spearman_corrcoef(first, second)))
    return {when: sum(values) / len(values) for when, values in sorted(found.items(), reverse=True)}
