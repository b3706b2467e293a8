"""Training of the latent space of the shipped text-to-image model: a small `AutoencoderKL`."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from fklit.learning_rate import with_warmup_cosine


def latent_scale(autoencoder: Any, images: Tensor) -> float:
    """`scaling_factor`: one over the root mean square of the latents of images `(N, 3, H, W)` in [0, 1].

    The root mean square rather than the standard deviation, because diffusers' pipelines scale and do not shift.
    """
    with torch.inference_mode():
        latents = torch.cat([autoencoder.encode(part * 2 - 1).latent_dist.mode() for part in torch.split(images, 64)])
    return 1.0 / latents.float().square().mean().sqrt().item()


class AutoencoderTask(LightningModule):
    """Trains diffusers' `AutoencoderKL` on images.

    The loss is the absolute error of the pixels and of their differences to the right and below (which keeps edges
    sharp), plus a little of the Kullback-Leibler divergence to a standard normal (Rombach et al. 2022,
    arXiv:2112.10752, section 3.1). No attention in the middle, so that the cost is in proportion to the pixels.

    Args:
        block_out_channels: Channels of each resolution; each after the first halves the image.
        latent_channels: Channels of the latent.
        layers_per_block: Residual blocks of each resolution.
        norm_num_groups: Of the group normalizations; must divide every number of channels.
        sample_size: Side of the images in pixels.
        kl_weight: Weight of the divergence (mean over latent entries).
        edge_weight: Weight of the error of the differences.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        export_dir: Folder of the autoencoder, written at the end of `fit` with the scale of the latents of the
            validation images; None for none.

    Batches are `{"image": (N, 3, H, W) in [0, 1]}`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (32, 32, 64),
        latent_channels: int = 4,
        *,
        layers_per_block: int = 1,
        norm_num_groups: int = 8,
        sample_size: int = 64,
        kl_weight: float = 3e-4,
        edge_weight: float = 0.5,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        if any(channels % norm_num_groups for channels in block_out_channels):
            raise ValueError(
                f"expected norm_num_groups to divide all of block_out_channels={tuple(block_out_channels)}, got "
                f"{norm_num_groups}; choose a common divisor."
            )
        if kl_weight < 0 or edge_weight < 0 or learning_rate <= 0:
            raise ValueError(
                f"expected kl_weight and edge_weight of at least 0 and learning_rate above 0, got {kl_weight}, "
                f"{edge_weight} and {learning_rate}; change the one that is outside."
            )
        self.block_out_channels = tuple(block_out_channels)
        self.latent_channels = latent_channels
        self.layers_per_block = layers_per_block
        self.norm_num_groups = norm_num_groups
        self.sample_size = sample_size
        self.kl_weight = kl_weight
        self.edge_weight = edge_weight
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.export_dir = export_dir
        self.save_hyperparameters()
        self.vae: Any = None

    def configure_model(self) -> None:
        """Builds the network (once)."""
        if self.vae is not None:
            return
        from diffusers import AutoencoderKL

        levels = len(self.block_out_channels)
        self.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=self.block_out_channels,
            layers_per_block=self.layers_per_block,
            latent_channels=self.latent_channels,
            norm_num_groups=self.norm_num_groups,
            sample_size=self.sample_size,
            mid_block_add_attention=False,
        )

    def losses(self, image: Tensor, *, sample: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixel error, edge error, divergence and reconstruction of a batch `(N, 3, H, W)`, both in [0, 1]."""
        target = image * 2.0 - 1.0
        posterior = self.vae.encode(target).latent_dist
        latent = posterior.sample() if sample else posterior.mode()
        output = self.vae.decode(latent).sample.float()
        error = output - target
        pixel = error.abs().mean()
        edge = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        return pixel, edge, divergence, (output / 2 + 0.5).clamp(0, 1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step; logs `train/pixel`, `train/edge` and `train/kl`."""
        pixel, edge, divergence, _ = self.losses(batch["image"], sample=True)
        self.log_dict({"train/pixel": pixel, "train/edge": edge, "train/kl": divergence})
        return pixel + self.edge_weight * edge + self.kl_weight * divergence

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs `val/pixel` and `val/psnr` (decibel), and shows the first reconstructions."""
        image = batch["image"]
        pixel, _, _, output = self.losses(image, sample=False)
        psnr = -10.0 * math.log10(max(F.mse_loss(output, image).item(), 1e-12))
        self.log_dict({"val/pixel": pixel, "val/psnr": psnr}, batch_size=len(image), prog_bar=True, sync_dist=True)
        if batch_idx == 0:
            pairs = torch.cat([image[:8], output[:8]], dim=-2)
            for logger in self.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_images("reconstruction", pairs, self.global_step)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            loader = self.trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
            images = torch.cat([batch["image"] for batch in loader])
            self.save_folder(self.export_dir, scaling_factor=latent_scale(self.vae.cpu().eval(), images))

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def save_folder(self, folder: str | Path, *, scaling_factor: float = 1.0) -> None:
        """Writes the autoencoder as a diffusers folder in float32.

        Args:
            folder: Where to.
            scaling_factor: One over the size of the latents (`latent_scale`).
        """
        self.vae.register_to_config(scaling_factor=scaling_factor)
        self.vae.save_pretrained(folder)
