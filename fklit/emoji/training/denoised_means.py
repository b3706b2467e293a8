"""Images as a diffusion model sees them half way: its denoised prediction from a noised latent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit import assets
from fklit.pipelines.denoised import denoised


class DenoisedMeans(nn.Module):
    """Replaces some images of a batch by a pipeline's denoised predictions `E[x_0 | x_t]`, `x_t` drawn from them.

    Steering scores such predictions. A contrastive model that sees them with the captions of the originals learns
    `p(caption | x_t)`: what the prediction says about the image that will come of it. Half of the batches are
    predicted without a caption, half with the given ones (no guidance). One timestep a batch.

    Args:
        folder: The pipeline's folder, or a shipped model ("fklit:emoji_scenes").
        share: Share of the images that are replaced, in (0, 1].
        lowest: Lowest timestep, as a share of all, in [0, 1).
        highest: Highest one, above `lowest`, at most 1.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: The folder holds no pipeline.
    """

    def __init__(self, folder: str, share: float = 0.2, *, lowest: float = 0.05, highest: float = 0.9) -> None:
        super().__init__()
        if not 0 < share <= 1 or not 0 <= lowest < highest <= 1:
            raise ValueError(
                f"expected share in (0, 1] and 0 <= lowest < highest <= 1, got {share}, {lowest} and {highest}; change "
                "the one that is outside."
            )
        if not ((assets.shipped(folder) or Path(folder)) / "model_index.json").is_file():
            raise FileNotFoundError(f"expected model_index.json in folder, got {folder!r} without; give a pipeline.")
        self.folder = folder
        self.share = share
        self.lowest, self.highest = lowest, highest
        self._pipeline: list[Any] = []  # in a list, so that checkpoints and optimizers do not see it

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 h w"], prompts: Sequence[str]) -> Float[Tensor, "n 3 h w"]:
        """Copies in [0, 1], a share of them replaced; draws from torch's global random state.

        Args:
            images: Images in [0, 1].
            prompts: One caption an image.
        """
        pipeline = self._load(images.device)
        count = max(round(self.share * len(images)), 1)
        chosen = torch.randperm(len(images), device=images.device)[:count]
        scale = pipeline.vae.config.scaling_factor
        latents = pipeline.vae.encode(images[chosen] * 2 - 1).latent_dist.mode() * scale
        steps = pipeline.scheduler.config.num_train_timesteps
        timestep = torch.randint(int(self.lowest * steps), max(int(self.highest * steps), 1), ())
        noised = pipeline.scheduler.add_noise(latents, torch.randn_like(latents), timestep.expand(count))
        texts = [prompts[index] for index in chosen.tolist()] if torch.rand(()) < 0.5 else [""] * count
        output = pipeline.unet(noised, timestep, encoder_hidden_states=self._encode(pipeline, texts)).sample
        means = denoised(pipeline.scheduler, output, timestep, noised)
        result = images.clone()
        result[chosen] = (pipeline.vae.decode(means / scale).sample / 2 + 0.5).clamp(0, 1).to(images.dtype)
        return result

    def _load(self, device: torch.device) -> Any:
        if not self._pipeline:
            from diffusers import StableDiffusionPipeline

            folder = assets.shipped(self.folder) or self.folder
            pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
            for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
                part.requires_grad_(False).eval()
            self._pipeline.append(pipeline)
        return self._pipeline[0].to(device)

    @staticmethod
    def _encode(pipeline: Any, texts: list[str]) -> Tensor:
        tokens = pipeline.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=pipeline.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        encoded: Tensor = pipeline.text_encoder(tokens.to(pipeline.device))[0]
        return encoded
