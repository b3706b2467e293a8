"""A pipeline with the exact denoiser of one law, which is told its noise level by a timestep, as real networks are."""

import inspect
from typing import Any

import torch

from fklit.analytic import GaussianMixture
from fklit.analytic.mixture_pipeline import MixtureOutput
from fklit.pipelines.families import family_name
from fklit.pipelines.noise_levels import step_levels


class TimedDenoiser(torch.nn.Module):
    """Predicts the noise of a law, or the velocity of flow matching, in float64; knows the levels of a grid."""

    def __init__(self, law: GaussianMixture, flow: bool) -> None:
        super().__init__()
        self.law, self.flow = law, flow
        self.levels: dict[float, tuple[float, float, float]] = {}

    def forward(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        scale, sigma, input_scale = self.levels[float(timestep)]
        points = sample.flatten(1).double() / input_scale
        if self.flow:
            x0 = self.law.denoised(points, scale, sigma) if scale > 0 else self.law.moments()[0].expand_as(points)
            found = (points - x0) / sigma
        else:
            found = -sigma * self.law.score(points, scale, sigma)
        return found.reshape(sample.shape).to(sample.dtype)


class TimedPipeline:
    """Samples a law of d dimensions, K of each of B prompts, which say nothing.

    Args:
        law: of the data.
        scheduler: a diffusers scheduler that predicts epsilon, or one of flow matching.
        dtype: of the samples.
    """

    def __init__(self, law: GaussianMixture, scheduler: Any, dtype: torch.dtype = torch.float32) -> None:
        self.scheduler, self._law, self._dtype = scheduler, law, dtype
        self.unet = TimedDenoiser(law, family_name(scheduler) == "flow")

    def __call__(
        self,
        prompt: Any,
        *,
        num_inference_steps: int = 10,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        eta: float = 0.0,
    ) -> MixtureOutput:
        scheduler = self.scheduler
        x = torch.cat([torch.randn(1, self._law.dim, 1, 1, generator=g) for g in generator]).to(self._dtype)
        scheduler.set_timesteps(num_inference_steps)
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)
        options: dict[str, Any] = {"eta": eta} if "DDIM" in type(scheduler).__name__ else {}
        scales = hasattr(scheduler, "scale_model_input")
        self.unet.levels = {}
        for place, timestep in enumerate(scheduler.timesteps):
            if hasattr(scheduler, "_step_index"):
                scheduler._step_index = place
            level = step_levels(scheduler, timestep)
            scale = 1 / (level.sigma**2 + 1) ** 0.5 if "Euler" in type(scheduler).__name__ and scales else 1.0
            self.unet.levels[float(timestep)] = (level.scale, level.sigma, scale)
        if hasattr(scheduler, "_step_index"):
            scheduler._step_index = None
        for timestep in scheduler.timesteps:
            rows = scheduler.scale_model_input(x, timestep) if scales else x
            output = self.unet(rows, timestep)
            if "generator" in inspect.signature(scheduler.step).parameters:
                options["generator"] = generator
            x = scheduler.step(output, timestep, x, return_dict=False, **options)[0]
        return MixtureOutput(x)
