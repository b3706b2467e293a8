"""A base model that stops early and a refiner: the refiner's part of the run is steered, from a latent a particle."""

import warnings

import torch
from tiny_families import rows

import fklit
from fklit.pipelines.stochasticity import SchedulerSwapWarning

PROMPTS = ["a cat", "a dog"]


def test_the_refiner_is_steered_from_the_latents_of_the_base_model():
    base, given = rows()["StableDiffusionXLPipeline"].make()
    refiner, other = rows()["StableDiffusionXLImg2ImgPipeline"].make()
    sources = [source for source in fklit.feynman_kac.group_generators(0, 2) for _ in range(3)]
    latents = base(
        prompt=PROMPTS, num_images_per_prompt=3, generator=sources, output_type="latent", denoising_end=0.5,
        **{**given, "num_inference_steps": 8},
    ).images  # fmt: skip
    own = {key: value for key, value in other.items() if key not in ("image", "strength")}
    call = {**own, "image": latents, "denoising_start": 0.5, "num_inference_steps": 8}
    settings = {
        "num_particles": 3, "reward": lambda images: images.flatten(1).mean(1), "pipeline_kwargs": call, "seed": 1,
        "reward_schedule": fklit.Schedule(0, 2), "ess_threshold": 1.0,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        steered = fklit.steer(refiner, PROMPTS, reward_scale=1e5, **settings)
    assert steered.num_steps == 4 and steered.resampled.any(dim=0).all()

    idle = fklit.steer(refiner, PROMPTS, reward_scale=0.0, **settings)
    sources = [source for source in fklit.feynman_kac.group_generators(1, 2) for _ in range(3)]
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    plain = refiner(prompt=prompts, generator=sources, output_type="pt", **call).images
    assert torch.equal(idle.samples.flatten(0, 1), plain)
