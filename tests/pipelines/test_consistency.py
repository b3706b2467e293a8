"""Consistency models by their own multi-step sampler: its denoised prediction, and a steered law in closed form."""

import math

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline, UNet2DModel

import fklit
from fklit.pipelines.denoised import denoised


class Gaussian(torch.nn.Module):
    """The consistency function of N(1, 0.3^2): pixels of (N, 1, 1, 2), along the probability flow to sigma_min."""

    def __init__(self, scheduler):
        super().__init__()
        self.scheduler = scheduler
        self.config = UNet2DModel(
            sample_size=2, in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=1,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        ).config  # fmt: skip
        self.dtype = torch.float32
        self.device = torch.device("cpu")

    def forward(self, sample, timestep, class_labels=None, return_dict=False):
        index = self.scheduler.step_index if self.scheduler.step_index is not None else 0
        sigma = self.scheduler.sigmas[index]
        c_skip, c_out = self.scheduler.get_scalings_for_boundary_condition(sigma)
        x = sample * (sigma**2 + self.scheduler.config.sigma_data**2) ** 0.5  # what scale_model_input divided by
        end = (0.3**2 + self.scheduler.config.sigma_min**2) ** 0.5 / (0.3**2 + sigma**2) ** 0.5
        return ((1 + (x - 1) * end - c_skip * x) / c_out,)


def _pipeline():
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_max=80.0, clip_denoised=False)
    pipeline = ConsistencyModelPipeline.__new__(ConsistencyModelPipeline)
    unet = Gaussian(scheduler)
    ConsistencyModelPipeline.__init__(pipeline, unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore")
def test_the_prediction_is_that_of_the_sampler():
    scheduler = CMStochasticIterativeScheduler(num_train_timesteps=40)
    scheduler.set_timesteps(timesteps=[22, 0])
    torch.manual_seed(0)
    sample, output = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    time = scheduler.timesteps[0]
    scheduler.scale_model_input(sample, time)
    found = denoised(scheduler, output, time, sample)
    sigma = scheduler.sigmas[scheduler.step_index]
    stepped = scheduler.step(output, time, sample, generator=torch.Generator().manual_seed(1)).prev_sample
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    level = (scheduler.sigmas[1].clamp(min=0.002) ** 2 - 0.002**2) ** 0.5
    assert float(sigma) > 1
    torch.testing.assert_close(stepped, found + noise * level)


@pytest.mark.filterwarnings("ignore")
def test_steering_reaches_the_tilted_law():
    """The mean of N(1, 0.3^2) tilted by exp(2 x / 0.5 + ...): x in [0, 1] pictures is (x + 1) / 2 of the sample."""
    pipeline = _pipeline()
    result = fklit.steer(
        pipeline, None, num_particles=4000, reward=lambda images: images[:, 0, 0, 0] + images[:, 0, 0, 1],
        reward_scale=2.0, reward_schedule=fklit.Schedule(0, 3), pipeline_kwargs={"num_inference_steps": 4},
        decode=lambda latents: latents / 2 + 0.5,
    )  # fmt: skip
    assert result.resampled.any() or float(result.min_ess) > 0.5 * 4000
    # Pictures are cut off at 1: the law of both pixels z = 1 + 0.3 e, shown as min((z + 1) / 2, 1), in closed form.
    z = torch.linspace(-1.0, 3.0, 20_001, dtype=torch.float64)
    density = torch.exp(-((z - 1) ** 2) / 0.18)
    shown = ((z + 1) / 2).clamp(0, 1)
    tilted = density * torch.exp(2.0 * shown)
    expected = float((tilted * shown).sum() / tilted.sum())
    log_z = 2 * math.log(float(tilted.sum() / density.sum()))
    found = float((result.log_weights.exp() * result.samples[0, :, 0, 0, 0]).sum())
    assert abs(found - expected) < 3 * 0.09 / 4000**0.5 * 2 and abs(float(result.log_z) - log_z) < 0.03


def test_a_base_model_that_stops_early_is_refused():
    from tiny import tiny_sdxl

    with pytest.raises(ValueError, match=r"no 'denoising_end', at which .* steer the refiner"):
        fklit.steer(
            tiny_sdxl(), "a cat", reward=lambda images: images.mean((1, 2, 3)), reward_scale=1.0,
            pipeline_kwargs={"denoising_end": 0.8},
        )  # fmt: skip
