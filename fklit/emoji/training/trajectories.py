"""Whole runs of a generator: what its denoised predictions looked like on the way to each picture."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.emoji.training.frozen_pipeline import FrozenPipeline
from fklit.pipelines.denoised import denoised


class Trajectories(FrozenPipeline):
    """Draws pictures with a pipeline and keeps its denoised predictions `E[x_0 | x_t]` at a few random steps.

    A reward that scores its own final pictures and learns from the predictions on the way to them learns
    `E[reward(x_0) | x_t]`, which is what the potentials of FK steering ask for (Singhal et al. 2025,
    arXiv:2501.06848, section 3.2, learned intermediate rewards). DDIM with the noise of DDPM (`eta` 1), no guidance.

    Args:
        folder: The pipeline's folder, or a shipped model ("fklit:emoji_scenes").
        prompts: Captions of each batch to draw for, at least 1.
        samples: Pictures of each caption, at least 1.
        steps: Steps of a run, at least 2.
        kept: Steps of each run whose predictions are kept, at least 1.
        first: First step that may be kept, as a share of the run, in [0, 1).
        last: End of these steps, above `first`, at most 1.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: The folder holds no pipeline.
    """

    def __init__(
        self,
        folder: str,
        prompts: int = 64,
        samples: int = 4,
        *,
        steps: int = 30,
        kept: int = 4,
        first: float = 0.2,
        last: float = 0.9,
    ) -> None:
        super().__init__(folder)
        if min(prompts, samples, kept) < 1 or steps < 2:
            raise ValueError(
                f"expected prompts, samples and kept of at least 1 and steps of at least 2, got {prompts}, {samples}, "
                f"{kept} and {steps}; change the one that is outside."
            )
        window = range(int(first * steps), int(last * steps))
        if not 0 <= first < last <= 1 or len(window) < kept:
            raise ValueError(
                f"expected 0 <= first < last <= 1 with at least kept={kept} of {steps} steps between them, got {first} "
                f"and {last}; widen the window."
            )
        self.prompts, self.samples = prompts, samples
        self.steps, self.kept, self.window = steps, kept, window

    @torch.no_grad()
    def forward(
        self, prompts: Sequence[str], device: torch.device
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n k 3 h w"]]:
        """One run for each prompt; draws from torch's global random state.

        Args:
            prompts: n captions.
            device: Where to draw.

        Returns:
            Final pictures in [0, 1], and the denoised predictions of k random steps of their runs, noisy ones first.
        """
        sample, means, _ = self.latents(prompts, device)
        rows = torch.cat([sample, *means.unbind(1)])
        decoded: Tensor = self.decode(self.load(device), rows).float()
        runs = decoded.view(1 + self.kept, len(sample), *decoded.shape[1:])
        return runs[0], runs[1:].transpose(0, 1)

    @torch.no_grad()
    def latents(
        self, prompts: Sequence[str], device: torch.device
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n k c h w"], Float[Tensor, " k"]]:
        """The same runs before they are decoded.

        Args:
            prompts: n captions.
            device: Where to draw.

        Returns:
            Final latents, the denoised predictions of k random steps, noisy ones first, and the times of these steps as
            shares of the training timesteps, in [0, 1).
        """
        from diffusers import DDIMScheduler

        chosen = torch.randperm(len(self.window))[: self.kept].tolist()
        kept = {self.window[index] for index in chosen}
        pipeline = self.load(device)
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(self.steps)
        texts = self.encode_texts(pipeline, list(prompts))
        side = pipeline.unet.config.sample_size
        sample = torch.randn(len(texts), pipeline.unet.config.in_channels, side, side, device=device)
        means, times = [], []
        for index, timestep in enumerate(scheduler.timesteps):
            output = pipeline.unet(sample, timestep, encoder_hidden_states=texts).sample.float()
            if index in kept:
                means.append(denoised(scheduler, output, timestep, sample))
                times.append(float(timestep) / scheduler.config.num_train_timesteps)
            sample = scheduler.step(output, timestep, sample, eta=1.0).prev_sample
        return sample, torch.stack(means, dim=1), torch.tensor(times)
