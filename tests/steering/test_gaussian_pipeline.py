"""Steering through a real diffusers pipeline and scheduler, where the exact answer is known.

The data are N(0, 1) and the denoiser is exact, so every sampler is a linear Gaussian chain: the base's samples are
N(0, v), with v measured on 48,000 of them, and the tilt by exp(scale * r), r(x) = -(x - c)^2 / 2, is Gaussian with
known mean, variance and Z.
"""

import math

import pytest
import torch

import fklit
from fklit.steering.calibration import Calibrated

CENTER, SCALE, STEPS = 1.5, 2.0, 20


class ExactDenoiser(torch.nn.Module):
    """Predicts the noise of N(0, 1) data exactly: E[eps | x_t] = sqrt(1 - a_t) x_t."""

    def __init__(self, scheduler):
        super().__init__()
        from types import SimpleNamespace

        self.config = SimpleNamespace(sample_size=1, in_channels=1)
        self.alphas = scheduler.alphas_cumprod.double()
        self.dtype = torch.float32

    def forward(self, sample, timestep):
        from types import SimpleNamespace

        return SimpleNamespace(sample=((1 - self.alphas[int(timestep)]).sqrt() * sample).float())


def _pipeline(name):
    import diffusers

    options = {"clip_sample": False} if name == "DDPMScheduler" else {"algorithm_type": "sde-dpmsolver++"}
    scheduler = getattr(diffusers, name)(**options)

    class Unconditional(diffusers.DDPMPipeline):
        """Returns the samples as they are: [0, 1] is no place for a Gaussian."""

        @torch.no_grad()
        def __call__(self, batch_size=1, generator=None, num_inference_steps=1000, output_type="pt"):
            x = torch.cat([torch.randn(1, 1, 1, 1, generator=g) for g in generator])
            self.scheduler.set_timesteps(num_inference_steps)
            for t in self.scheduler.timesteps:
                x = self.scheduler.step(self.unet(x, t).sample, t, x, generator=generator, return_dict=False)[0]
            return type("Output", (), {"images": x})()

    return Unconditional(unet=ExactDenoiser(scheduler), scheduler=scheduler)


def _reward(x):
    return -((x.reshape(-1) - CENTER) ** 2) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("potential", ["difference", "max", "calibrated"])
def test_tilted_gaussian(name, potential):
    pipeline, particles, seeds = _pipeline(name), 4000, range(6)
    call = {"num_inference_steps": STEPS}
    if potential == "calibrated":
        made = fklit.calibrate(
            pipeline, reward=_reward, num_samples=500, upper_bound=0.0, decode=lambda x: x, pipeline_kwargs=call,
            scheduler="keep", schedule=fklit.Schedule(0.0, 0.95, 3),
        )  # fmt: skip
        potential = Calibrated(made)
    base = torch.cat([
        fklit.steer(pipeline, reward=_reward, reward_scale=0.0, num_particles=particles, seed=seed,
                    pipeline_kwargs=call, decode=lambda x: x, previews=False).samples.flatten()
        for seed in range(100, 112)
    ])  # fmt: skip
    variance = float(base.var())
    precision = 1 / variance + SCALE
    exact_mean, exact_variance = SCALE * CENTER / precision, 1 / precision
    exact_log_z = -0.5 * math.log(1 + SCALE * variance) - 0.5 * SCALE * CENTER**2 / (1 + SCALE * variance)
    means, variances, log_z = [], [], []
    for seed in seeds:
        result = fklit.steer(
            pipeline,
            reward=_reward,
            reward_scale=SCALE,
            num_particles=particles,
            potential=potential,
            reward_schedule=fklit.Schedule(0.0, 0.95, 3),
            ess_threshold=0.9,
            seed=seed,
            scheduler="keep",
            decode=lambda x: x,
            previews=False,
            pipeline_kwargs=call,
        )
        assert result.resampled.any()
        x, weights = result.samples.flatten().double(), result.log_weights[0].exp()
        mean = float((weights * x).sum())
        means.append(mean)
        variances.append(float((weights * (x - mean) ** 2).sum()))
        log_z.append(float(result.log_z))
    assert abs(sum(means) / len(means) - exact_mean) < 0.03, (means, exact_mean)
    assert abs(sum(variances) / len(variances) - exact_variance) < 0.02, (variances, exact_variance)
    assert abs(sum(log_z) / len(log_z) - exact_log_z) < 0.04, (log_z, exact_log_z)
