"""Pictures in the hand of a generator: partly noised and drawn again, and how much of each has changed."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fklit.emoji.training.frozen_pipeline import FrozenPipeline

WINDOW = 16  # pixels; an object is 26 to 30 wide


class Regenerate(FrozenPipeline):
    """Noises some pictures of a batch part of the way and lets a pipeline draw them again (SDEdit).

    Meng et al. 2022 (arXiv:2108.01073), algorithm 1. Under its own caption a scene stays what it is and gets the small
    faults of generated pictures; under another one its objects become hybrids of what was there and what the caption
    asks for, or half-melted. What of it still shows the original is known from the pixels, without any judge.

    Args:
        folder: The pipeline's folder, or a shipped model ("fklit:emoji_scenes").
        share: Share of the pictures, in (0, 1].
        lowest: Lowest noise level to start from, as a share of the timesteps, in (0, 1).
        highest: Highest one, at least `lowest`.
        steps: Steps from pure noise; a start in the middle takes half of them.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: The folder holds no pipeline.
    """

    def __init__(
        self, folder: str, share: float = 0.25, *, lowest: float = 0.25, highest: float = 0.65, steps: int = 8
    ) -> None:
        super().__init__(folder)
        if not 0 < share <= 1 or not 0 < lowest <= highest < 1 or steps < 2:
            raise ValueError(
                f"expected share in (0, 1], 0 < lowest <= highest < 1 and steps of at least 2, got {share}, {lowest}, "
                f"{highest} and {steps}; change the one that is outside."
            )
        self.share = share
        self.lowest, self.highest, self.steps = lowest, highest, steps

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "n 3 h w"], prompts: Sequence[str]
    ) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " m"], Float[Tensor, "m r c"]]:
        """Copies with a share of them drawn again; draws from torch's global random state.

        Args:
            images: Pictures in [0, 1].
            prompts: The caption to draw each under.

        Returns:
            The pictures; which were drawn again; and for these the root mean square change of each window of 16 pixels
            (stride 8) against the same picture through the autoencoder alone.
        """
        from diffusers import DDIMScheduler

        pipeline = self.load(images.device)
        count = max(round(self.share * len(images)), 1)
        chosen = torch.randperm(len(images), device=images.device)[:count]
        latents = self.encode_images(pipeline, images[chosen])
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(self.steps)
        level = self.lowest + (self.highest - self.lowest) * float(torch.rand(()))
        target = level * scheduler.config.num_train_timesteps
        first = int((scheduler.timesteps - target).abs().argmin())
        timesteps = scheduler.timesteps[first:]
        sample = scheduler.add_noise(latents, torch.randn_like(latents), timesteps[:1].expand(count))
        texts = self.encode_texts(pipeline, [prompts[index] for index in chosen.tolist()])
        for timestep in timesteps:
            output = pipeline.unet(sample, timestep, encoder_hidden_states=texts).sample
            sample = scheduler.step(output.float(), timestep, sample, eta=1.0).prev_sample
        drawn, before = self.decode(pipeline, torch.cat([sample, latents])).float().chunk(2)
        change = F.avg_pool2d((drawn - before).square().mean(1, keepdim=True), WINDOW, stride=WINDOW // 2).sqrt()[:, 0]
        result = images.clone()
        result[chosen] = drawn.to(images.dtype)
        return result, chosen, change
