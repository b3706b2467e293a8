"""Training of an `AutoencoderTiny`: distilled from a pipeline's autoencoder on what is decoded while steering."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.atomic import write_json_atomically
from fklit.emoji.latent_trajectory_data import LatentTrajectoryBatch
from fklit.emoji.training.frozen_pipeline import FrozenPipeline
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.rewards.image_reward import ImageReward


class TinyAutoencoderTask(LightningModule):
    """Trains an `AutoencoderTiny` of diffusers, which `fklit.pipelines.tiny_decoder.TinyDecoder` loads.

    The decoder learns to show what the pipeline's autoencoder shows of denoised predictions (absolute and squared
    difference of pixels), and, with a reward, to be seen by its vision tower as the same (squared difference of image
    tokens in units of their spread): it stands in for the autoencoder where that reward scores. The encoder learns to
    give the latents back. The method is that of TAESD (Bohan 2023), without its adversarial loss.

    Args:
        pipeline: Folder of the generator, or "fklit:NAME".
        reward: An `ImageReward` whose image tokens are to be the same; None for pixels alone.
        latent_channels: Of the latents.
        channels: Of all convolutions.
        decoder_blocks: Residual blocks at each size, the smallest first.
        encoder_blocks: Residual blocks at each size, the largest first.
        token_weight: Weight of the difference of image tokens, at least 0.
        rows: Predictions of a batch that are decoded, at least 1.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        export_dir: Folder to write at the end of `fit`; None for none.

    Raises:
        ValueError: A number is out of its range; in `setup`, sizes are not those of the pipeline's autoencoder.
    """

    def __init__(
        self,
        pipeline: str = "fklit:emoji_scenes",
        reward: str | None = "fklit:emoji_reward",
        *,
        latent_channels: int = 4,
        channels: int = 16,
        decoder_blocks: tuple[int, ...] = (3, 1, 1),
        encoder_blocks: tuple[int, ...] = (1, 1, 1),
        token_weight: float = 0.1,
        rows: int = 64,
        learning_rate: float = 3e-3,
        warmup_steps: int = 50,
        export_dir: str | None = None,
    ) -> None:
        from diffusers import AutoencoderTiny

        super().__init__()
        save_hyperparameters(self)
        if channels < 1 or rows < 1 or token_weight < 0 or learning_rate <= 0:
            raise ValueError(
                "expected channels and rows of at least 1, token_weight of at least 0 and learning_rate above 0, got "
                f"{channels}, {rows}, {token_weight} and {learning_rate}; change the one outside."
            )
        self.rows, self.token_weight = rows, token_weight
        self.learning_rate, self.warmup_steps, self.export_dir = learning_rate, warmup_steps, export_dir
        # In lists, so that checkpoints and optimizers do not see them
        self._pipeline = [FrozenPipeline(pipeline)]
        self._reward = [] if reward is None else [ImageReward(reward)]
        self.network = AutoencoderTiny(
            latent_channels=latent_channels,
            encoder_block_out_channels=(channels,) * len(encoder_blocks),
            decoder_block_out_channels=(channels,) * len(decoder_blocks),
            num_encoder_blocks=tuple(encoder_blocks),
            num_decoder_blocks=tuple(decoder_blocks),
            force_upcast=False,
        )

    def setup(self, stage: str) -> None:
        """Compare with the pipeline's autoencoder.

        Raises:
            ValueError: Sizes or channels are not those of the autoencoder.
        """
        vae = self._pipeline[0].load(torch.device("cpu")).vae.config
        own = self.network.config
        wanted = (vae.latent_channels, len(vae.block_out_channels))
        for name in ("encoder", "decoder"):
            found = (own.latent_channels, len(own[f"num_{name}_blocks"]))
            if found != wanted:
                raise ValueError(
                    f"expected {wanted[0]} latent_channels and {name}_blocks at {wanted[1]} sizes, as the pipeline's "
                    f"autoencoder has them, got {found[0]} and {found[1]}; give these."
                )

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) of scaled latents (n, c, h, w), about 0 to 1."""
        found: Tensor = self.network.decode(latents, return_dict=False)[0]
        return found / 2 + 0.5

    def losses(self, latents: Tensor) -> dict[str, Tensor]:
        """Terms of the loss on denoised predictions (n, c, h, w)."""
        frozen = self._pipeline[0]
        with torch.no_grad():
            wanted = frozen.decode(frozen.load(self.device), latents).float()
        made = self.decode(latents)
        terms = {"absolute": F.l1_loss(made, wanted), "squared": F.mse_loss(made, wanted)}
        if self._reward and self.token_weight:
            with torch.no_grad():
                tokens = self.reward.see(wanted)
            terms["tokens"] = F.mse_loss(self.reward.see(made.clamp(0, 1)), tokens) / tokens.var()
        terms["latents"] = F.mse_loss(self.network.encode(wanted * 2 - 1, return_dict=False)[0], latents)
        return terms

    @property
    def reward(self) -> ImageReward:
        """The reward, on the device of this module."""
        reward = self._reward[0]
        reward.load()
        return reward if reward.device == self.device else reward.to(self.device)

    def training_step(self, batch: LatentTrajectoryBatch, batch_idx: int) -> Tensor:
        """One step; logs every term under `train/`."""
        terms = self.losses(batch["latents"][: self.rows])
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "squared")
        weights = {"absolute": 1.0, "squared": 4.0, "tokens": self.token_weight, "latents": 0.1}
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()

    def validation_step(self, batch: LatentTrajectoryBatch, batch_idx: int) -> None:
        """Logs every term under `val/`."""
        for name, value in self.losses(batch["latents"]).items():
            self.log(f"val/{name}", value, batch_size=len(batch["latents"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes the folder in float16, as `AutoencoderTiny.from_pretrained` and `TinyDecoder` read it."""
        import copy

        torch.nn.Module.half(copy.deepcopy(self.network)).cpu().save_pretrained(folder)
        # diffusers writes `block_out_channels`, which its own class does not take, and warns of it at each loading
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("block_out_channels", None)
        write_json_atomically(path, config, indent=2)
