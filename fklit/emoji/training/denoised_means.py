"""Images as a diffusion model sees them half way: its denoised prediction from a noised latent."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.emoji.training.frozen_pipeline import FrozenPipeline
from fklit.pipelines.denoised import denoised


class DenoisedMeans(FrozenPipeline):
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
        super().__init__(folder)
        if not 0 < share <= 1 or not 0 <= lowest < highest <= 1:
            raise ValueError(
                f"expected share in (0, 1] and 0 <= lowest < highest <= 1, got {share}, {lowest} and {highest}; change "
                "the one that is outside."
            )
        self.share = share
        self.lowest, self.highest = lowest, highest

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 h w"], prompts: Sequence[str]) -> Float[Tensor, "n 3 h w"]:
        """Copies in [0, 1], a share of them replaced; draws from torch's global random state.

        Args:
            images: Images in [0, 1].
            prompts: One caption an image.
        """
        pipeline = self.load(images.device)
        count = max(round(self.share * len(images)), 1)
        chosen = torch.randperm(len(images), device=images.device)[:count]
        latents = self.encode_images(pipeline, images[chosen])
        steps = pipeline.scheduler.config.num_train_timesteps
        timestep = torch.randint(int(self.lowest * steps), max(int(self.highest * steps), 1), ())
        noised = pipeline.scheduler.add_noise(latents, torch.randn_like(latents), timestep.expand(count))
        texts = [prompts[index] for index in chosen.tolist()] if torch.rand(()) < 0.5 else [""] * count
        output = pipeline.unet(noised, timestep, encoder_hidden_states=self.encode_texts(pipeline, texts)).sample
        means = denoised(pipeline.scheduler, output, timestep, noised)
        result = images.clone()
        result[chosen] = self.decode(pipeline, means).to(images.dtype)
        return result
