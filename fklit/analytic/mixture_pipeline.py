"""A pipeline whose denoiser is exact: two mixtures behind a diffusers scheduler, guided as diffusers guides.

What an algorithm on pipelines returns can be compared with the truth here, through the same schedulers and the same
interception as with Stable Diffusion.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fklit.analytic.gaussian import GaussianMixture
from fklit.pipelines.families import family_name
from fklit.pipelines.noise_levels import step_levels


@dataclass(frozen=True)
class MixtureOutput:
    """What a call returns.

    Attributes:
        images: samples (N, d, 1, 1), float32; not confined to [0, 1].
    """

    images: Tensor


class MixturePipeline:
    """Classifier-free guidance between the laws of prompts and an unconditional law, with exact denoisers.

    Args:
        laws: law of each prompt, all of d dimensions.
        unconditional: law without a prompt, of d dimensions.
        scheduler: a diffusers scheduler with a known noise level (DDIM, DDPM, Euler ancestral, DPM-Solver++) that
            predicts epsilon, or one of flow matching, for which the velocity is predicted.

    Attributes:
        unet: the denoiser; as in diffusers it gets the unconditional and conditional rows in one call.
    """

    def __init__(self, laws: Mapping[str, GaussianMixture], unconditional: GaussianMixture, scheduler: Any) -> None:
        self.laws = dict(laws)
        self.unconditional = unconditional
        self.scheduler = scheduler
        self.unet = _ExactDenoiser()

    def __call__(
        self,
        prompt: Sequence[str],
        *,
        guidance_scale: float = 2.0,
        num_inference_steps: int = 30,
        num_images_per_prompt: int = 1,
        generator: Sequence[torch.Generator] | None = None,
        eta: float = 0.0,
    ) -> MixtureOutput:
        """Sample K samples of each prompt.

        Args:
            prompt: B names of laws.
            guidance_scale: in the convention of diffusers; there is no guidance at 1 or below.
            num_inference_steps: steps.
            num_images_per_prompt: K.
            generator: one a sample, or None for torch's global one.
            eta: noise of DDIM.
        """
        laws = [self.laws[name] for name in prompt for _ in range(num_images_per_prompt)]
        sources = [None] * len(laws) if generator is None else list(generator)
        dim = self.unconditional.dim
        x = torch.cat([torch.randn(1, dim, 1, 1, generator=source) for source in sources])
        scheduler = self.scheduler
        scheduler.set_timesteps(num_inference_steps)
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)
        flow = family_name(scheduler) == "flow"
        guided = guidance_scale > 1
        options: dict[str, Any] = {"eta": eta} if "DDIM" in type(scheduler).__name__ else {}
        for timestep in scheduler.timesteps:
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, timestep)  # some schedulers find their position there
            levels = step_levels(scheduler, timestep)
            rows, wanted = (torch.cat([x, x]), [self.unconditional] * len(laws) + laws) if guided else (x, laws)
            known = list({id(law): law for law in wanted}.values())
            which = torch.tensor([next(i for i, law in enumerate(known) if law is each) for each in wanted])
            output = self.unet(
                rows, which=which, laws=tuple(known), scale=levels.scale, sigma=levels.sigma, velocity=flow
            )
            if guided:
                uncond, cond = output.chunk(2)
                output = uncond + guidance_scale * (cond - uncond)
            if "generator" in inspect.signature(scheduler.step).parameters:
                options["generator"] = generator
            x = scheduler.step(output, timestep, x, return_dict=False, **options)[0]
        return MixtureOutput(x)


class _ExactDenoiser(nn.Module):
    """Predicts the noise, or the velocity, of each row's law; rows of one law are evaluated together."""

    def forward(
        self,
        sample: Tensor,
        *,
        which: Tensor,
        laws: Sequence[GaussianMixture],
        scale: float,
        sigma: float,
        velocity: bool = False,
    ) -> Tensor:
        points = sample.flatten(1).double()
        noise = torch.empty_like(points)
        for number, law in enumerate(laws):
            rows = (which == number).nonzero().flatten()
            if velocity:  # e - x0 = (x - x0) / sigma; of pure noise x0 is the mean of the law
                x0 = law.denoised(points[rows], scale, sigma) if scale > 0 else law.moments()[0]
                noise[rows] = (points[rows] - x0) / sigma
            else:
                noise[rows] = -sigma * law.score(points[rows], scale, sigma)
        return noise.reshape(sample.shape).to(sample.dtype)
