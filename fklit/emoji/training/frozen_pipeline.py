"""A pretrained text-to-image pipeline inside a training: frozen, loaded at first use, in no checkpoint."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit import assets


class FrozenPipeline(nn.Module):
    """Base of modules that show pictures as a `StableDiffusionPipeline` would draw them.

    Args:
        folder: The pipeline's folder, or a shipped model ("fklit:emoji_scenes").

    Raises:
        FileNotFoundError: The folder holds no pipeline.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        if not ((assets.shipped(folder) or Path(folder)) / "model_index.json").is_file():
            raise FileNotFoundError(f"expected model_index.json in folder, got {folder!r} without; give a pipeline.")
        self.folder = folder
        self._pipeline: list[Any] = []  # in a list, so that checkpoints and optimizers do not see it

    def load(self, device: torch.device) -> Any:
        """The pipeline on a device, without gradients."""
        if not self._pipeline:
            from diffusers import StableDiffusionPipeline

            folder = assets.shipped(self.folder) or self.folder
            pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
            for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
                part.requires_grad_(False).eval()
            self._pipeline.append(pipeline)
        pipeline = self._pipeline[0]
        return pipeline if pipeline.device == device else pipeline.to(device)

    @staticmethod
    def encode_texts(pipeline: Any, texts: list[str]) -> Float[Tensor, "n l d"]:
        """Hidden states of texts, each different one encoded once."""
        different = list(dict.fromkeys(texts))
        tokens = pipeline.tokenizer(
            different,
            padding="max_length",
            truncation=True,
            max_length=pipeline.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        encoded: Tensor = pipeline.text_encoder(tokens.to(pipeline.device))[0]
        return encoded[[different.index(text) for text in texts]]

    @staticmethod
    def encode_images(pipeline: Any, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Scaled latents of images in [0, 1]."""
        latents: Tensor = pipeline.vae.encode(images * 2 - 1).latent_dist.mode() * pipeline.vae.config.scaling_factor
        return latents

    @staticmethod
    def decode(pipeline: Any, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Images in [0, 1] of scaled latents."""
        decoded: Tensor = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        return (decoded / 2 + 0.5).clamp(0, 1)
