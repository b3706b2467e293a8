"""A safety checker that blackens some pictures in place: the law, the evidence and the rewards are those without it."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.image_processor import VaeImageProcessor

import fklit

MEAN, STD, PIXELS, STEPS, SCALE = 0.05, 0.2, 3 * 4 * 4, 20, 70.0


class _Denoiser(torch.nn.Module):
    """The noise in a picture whose pixels are N(MEAN, STD^2)."""

    def forward(self, sample, alpha_bar):
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        mean = MEAN + signal * STD**2 / (signal**2 * STD**2 + noise**2) * (sample - signal * MEAN)
        return (sample - signal * mean) / noise


class _Decoder(torch.nn.Module):
    def decode(self, latents, return_dict=False):
        return (latents.clone(),)


class CheckedPipeline:
    """Pictures of independent pixels; those brighter than one half are zeroed in place, as by diffusers."""

    def __init__(self):
        self.scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        self.unet, self.vae, self.image_processor = _Denoiser(), _Decoder(), VaeImageProcessor()
        self.safety_checker = object()

    def __call__(self, prompt, *, num_images_per_prompt=1, num_inference_steps=STEPS, generator=None, eta=1.0):
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.stack([torch.randn(3, 4, 4, generator=source) for source in generator])
        assert len(x) == len(prompt) * num_images_per_prompt
        for t in self.scheduler.timesteps:
            output = self.unet(x, self.scheduler.alphas_cumprod[t])
            x = self.scheduler.step(output, t, x, eta=eta, generator=generator).prev_sample
        images = self.vae.decode(x)[0]
        flagged = (images.mean((1, 2, 3)) > 0).tolist()
        for number, bad in enumerate(flagged):
            if bad:
                images[number] = 0.0  # in place, as StableDiffusionSafetyChecker
        images = self.image_processor.postprocess(images, output_type="pt", do_denormalize=[not bad for bad in flagged])
        return type("Output", (), {"images": images, "nsfw_content_detected": flagged})


def law_of_the_sampler():
    """Mean and variance of a pixel after the steps of DDIM at eta 1, each of which is affine in the sample."""
    pipeline = CheckedPipeline()
    scheduler, mean, variance = pipeline.scheduler, 0.0, 1.0
    scheduler.set_timesteps(STEPS)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()

    def step(value, noise, t):
        x = torch.full((1, 1), value, dtype=torch.float64)
        output = pipeline.unet(x, scheduler.alphas_cumprod[t])
        noise = torch.full_like(x, noise)
        return float(scheduler.step(output, t, x, eta=1.0, variance_noise=noise).prev_sample)

    for t in scheduler.timesteps:
        zero, slope, noise = step(0.0, 0.0, t), step(1.0, 0.0, t) - step(0.0, 0.0, t), step(0.0, 1.0, t)
        mean, variance = zero + slope * mean, slope**2 * variance + (noise - zero) ** 2
    return mean, variance


@pytest.mark.parametrize("max_batch", [None, 300])
def test_flags_change_neither_the_law_nor_the_evidence(max_batch):
    """Brightness of a picture: mean, variance and log Z within 3 standard errors; the best picture is not flagged."""
    mean, variance = law_of_the_sampler()
    bright, spread = (mean + 1) / 2, variance / 4 / PIXELS  # of a picture's mean in [0, 1]
    result = fklit.steer(
        CheckedPipeline(),
        [f"picture {i}" for i in range(12)],
        reward=lambda images: images.mean((1, 2, 3)),
        reward_scale=SCALE,
        num_particles=400,
        max_batch=max_batch,
        reward_schedule=fklit.Schedule(0.5, 0.9, 0.1),
        scheduler="keep",
        decode=lambda latents: (latents / 2 + 0.5).clamp(0, 1),
        pipeline_kwargs={"num_inference_steps": STEPS, "eta": 1.0},
    )
    weights, rewards = result.log_weights.exp(), result.rewards
    first = (weights * rewards).sum(1)
    second = (weights * (rewards - bright - SCALE * spread) ** 2).sum(1)
    for found, truth in (
        (first, bright + SCALE * spread),
        (second, spread),
        (result.log_z, SCALE * bright + SCALE**2 * spread / 2),
    ):
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean()) - truth) < 3 * error + 0.003 * spread

    # Flags are those of what was sampled; what is returned of them is black.
    flagged = torch.tensor(result.flagged)
    assert torch.equal(flagged, rewards > 0.5) and 0 < int(flagged.sum()) < flagged.numel()
    dark = result.samples.flatten(2).amax(2) == 0
    assert torch.equal(dark, flagged)
    for b, slot in enumerate(result.best_index().tolist()):
        assert not flagged[b, slot] or bool(flagged[b].all())
