"""Training of the shipped text-to-image model: a latent diffusion U-Net and its text encoder, together."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from fklit.emoji.training.sample_prompts import SAMPLE_SCENES
from fklit.emoji.training.text_to_image_parts import (
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    save_pipeline,
)
from fklit.learning_rate import with_warmup_cosine
from fklit.metrics.samples import SampleBatch


class TextToImageTask(LightningModule):
    """Trains diffusers' `UNet2DConditionModel` with transformers' `CLIPTextModel` on latents and captions.

    The network predicts the velocity (Salimans and Ho 2022, arXiv:2202.00512, appendix D); some captions are dropped
    for classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

    Args:
        autoencoder: Folder of the diffusers autoencoder that made the latents; read by `pipeline`.
        block_out_channels: Channels of each resolution of the U-Net.
        attention: For each resolution, whether it attends to the caption.
        layers_per_block: Residual blocks of each resolution.
        num_heads: Attention heads of the U-Net.
        text_width: Width of the text encoder.
        text_layers: Layers of the text encoder.
        max_length: Tokens of a padded caption.
        sample_size: Side of the latents.
        latent_channels: Channels of the latents.
        caption_dropout: Probability of training on an empty caption instead of the given one, in [0, 1).
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        num_samples: Images drawn at each validation and test (0 for none), 30 DDIM steps with guidance 4, always from
            the same prompts and noise; `fklit.callbacks.MetricsCallback` measures them.
        export_dir: Folder of the pipeline, written at the end of `fit`; None for none.

    Batches are `{"latent": (N, C, h, w) scaled, "prompt": list of str}`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        autoencoder: str,
        block_out_channels: tuple[int, ...] = (64, 64, 96),
        *,
        attention: tuple[bool, ...] = (False, True, True),
        layers_per_block: int = 1,
        num_heads: int = 4,
        text_width: int = 128,
        text_layers: int = 2,
        max_length: int = 24,
        sample_size: int = 16,
        latent_channels: int = 4,
        caption_dropout: float = 0.1,
        learning_rate: float = 1.5e-3,
        warmup_steps: int = 200,
        num_samples: int = 16,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        if len(attention) != len(block_out_channels):
            raise ValueError(
                f"expected attention for each of {len(block_out_channels)} resolutions, got {len(attention)} entries; "
                "give one for each of block_out_channels."
            )
        if not 0.0 <= caption_dropout < 1.0:
            raise ValueError(f"expected caption_dropout in [0, 1), got {caption_dropout}; give a probability.")
        if learning_rate <= 0:
            raise ValueError(f"expected learning_rate above 0, got {learning_rate}; give a positive number.")
        self.autoencoder = autoencoder
        self.block_out_channels = tuple(block_out_channels)
        self.attention = tuple(attention)
        self.layers_per_block = layers_per_block
        self.num_heads = num_heads
        self.text_width = text_width
        self.text_layers = text_layers
        self.max_length = max_length
        self.sample_size = sample_size
        self.latent_channels = latent_channels
        self.caption_dropout = caption_dropout
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.num_samples = num_samples
        self.export_dir = export_dir
        self.save_hyperparameters()
        self.unet: Any = None
        self.text_encoder: Any = None
        self.tokenizer: Any = None
        self.scheduler: Any = None

    @property
    def evaluates(self) -> str | None:
        """What the steps return, for `MetricsCallback`; None without samples."""
        return "samples" if self.num_samples else None

    @property
    def num_prompts(self) -> int:
        """Prompts that are drawn."""
        return min(self.num_samples, len(SAMPLE_SCENES))

    num_particles = 1

    def configure_model(self) -> None:
        """Learns the vocabulary and builds the networks (once)."""
        if self.unet is not None:
            return
        self.tokenizer = build_tokenizer(self.max_length)
        self.text_encoder = build_text_encoder(self.tokenizer, width=self.text_width, layers=self.text_layers)
        self.unet = build_unet(
            self.block_out_channels,
            attention=self.attention,
            layers_per_block=self.layers_per_block,
            num_heads=self.num_heads,
            text_width=self.text_width,
            sample_size=self.sample_size,
            latent_channels=self.latent_channels,
        )
        self.scheduler = build_scheduler()

    def encode(self, prompts: list[str]) -> Tensor:
        """Text embeddings of the prompts, `(N, max_length, text_width)`."""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        self._restore_positions()
        embeddings: Tensor = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        return embeddings

    def _restore_positions(self) -> None:
        """Undoes what averaging of weights does to buffers of integers: it rounds the positions of tokens down."""
        for name, positions in self.text_encoder.named_buffers():
            if name.endswith("position_ids"):
                positions.copy_(torch.arange(positions.shape[-1], device=positions.device).expand_as(positions))

    def velocity_error(self, latent: Tensor, prompts: list[str], noise: Tensor, timestep: Tensor) -> Tensor:
        """Mean squared error of the predicted velocity.

        Args:
            latent: Clean and scaled, `(N, C, h, w)`.
            prompts: N captions.
            noise: Standard normal, like `latent`.
            timestep: `(N,)` in 0 .. 999.
        """
        noisy = self.scheduler.add_noise(latent, noise, timestep)
        target = self.scheduler.get_velocity(latent, noise, timestep)
        predicted = self.unet(noisy, timestep, self.encode(prompts)).sample
        return F.mse_loss(predicted.float(), target)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step; logs `train/loss`."""
        latent = batch["latent"]
        keep = (torch.rand(len(latent)) >= self.caption_dropout).tolist()
        prompts = [prompt if kept else "" for prompt, kept in zip(batch["prompt"], keep, strict=True)]
        timestep = torch.randint(self.scheduler.config.num_train_timesteps, (len(latent),), device=latent.device)
        loss = self.velocity_error(latent, prompts, torch.randn_like(latent), timestep)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any] | None:
        """Logs `val/loss` with the same noise and times at every validation; the first step returns samples."""
        return self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any] | None:
        """Logs `test/loss` likewise; the first step returns samples."""
        return self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: dict[str, Any], batch_idx: int, stage: str) -> dict[str, Any] | None:
        latent = batch["latent"]
        generator = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        steps = self.scheduler.config.num_train_timesteps
        # Evenly spread times instead of random ones: less noise in the curve for the same cost.
        timestep = (torch.arange(len(latent), device=latent.device) * steps // len(latent)).long()
        loss = self.velocity_error(latent, batch["prompt"], noise, timestep)
        self.log(f"{stage}/loss", loss, batch_size=len(latent), prog_bar=True, sync_dist=True)
        # Within the epoch, where the weights are the averaged ones if a callback averages them.
        return (
            self.sample_scenes() if batch_idx == 0 and self.num_samples and not self.trainer.sanity_checking else None
        )

    def sample_scenes(self) -> dict[str, Any]:
        """Draws this process's share of the fixed prompts from fixed noise, and shows all of them to the loggers.

        Returns:
            `samples`, (B, 1, 3, H, W) in [0, 1], and `batch`, the `SampleBatch` of their prompts.
        """
        rank, world = self.trainer.global_rank, self.trainer.world_size
        scenes = SAMPLE_SCENES[: self.num_samples]
        indices = [*range(rank, len(scenes), world)]
        lines = [scenes[index].metadata() for index in indices]
        pipeline = self.pipeline().to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        side = self.sample_size * pipeline.vae_scale_factor
        images = torch.zeros(0, 3, side, side, device=self.device)
        if indices:
            with torch.autocast(self.device.type, enabled=False):
                images = pipeline(
                    [line["prompt"] for line in lines],
                    num_inference_steps=30,
                    guidance_scale=4.0,
                    generator=[torch.Generator().manual_seed(index) for index in indices],
                    output_type="pt",
                ).images.float()
        self._show(images, len(scenes))
        where = torch.tensor(indices, dtype=torch.int64)
        batch = SampleBatch([line["prompt"] for line in lines], lines, torch.zeros_like(where), where)
        return {"samples": images.unsqueeze(1), "batch": batch}

    def _show(self, images: Tensor, count: int) -> None:
        """Adds the pictures of all processes to TensorBoard, in the order of the prompts."""
        world = self.trainer.world_size
        if world > 1:
            padded = images.new_zeros(-(-count // world), *images.shape[1:])  # as many on every process
            padded[: len(images)] = images
            shares: Any = self.all_gather(padded)
            images = shares.transpose(0, 1).flatten(0, 1)[:count]
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self.trainer.is_global_zero:
                logger.experiment.add_images("samples", images, self.global_step)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a cosine over all steps of the run."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def pipeline(self) -> Any:
        """The networks as they are now as a `StableDiffusionPipeline` (they are shared, not copied)."""
        from diffusers import AutoencoderKL, StableDiffusionPipeline

        self._restore_positions()
        vae = AutoencoderKL.from_pretrained(self.autoencoder, dtype=torch.float32).eval()
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def save_folder(self, folder: str | Path) -> None:
        """Writes the pipeline as a folder of float16 safetensors for `StableDiffusionPipeline.from_pretrained`.

        Args:
            folder: Where to; the parts that are there are replaced.
        """
        save_pipeline(self.pipeline(), folder)
