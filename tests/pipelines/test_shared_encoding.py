"""One picture for several prompts: no prompt depends on the noise of another, and one prompt is the plain pipeline."""

import warnings

import pytest
import torch
from tiny_families import rows

import fklit
from fklit.feynman_kac import group_generators
from fklit.pipelines.call_rows import shares_encoding
from fklit.pipelines.shared_encoding import shared_encodings

NAMES = ["StableDiffusionInpaintPipeline", "FluxImg2ImgPipeline", "QwenImageImg2ImgPipeline", "ChromaImg2ImgPipeline"]


def _steer(pipeline, arguments, prompts, indices):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fklit.steer(
            pipeline, prompts, prompt_indices=indices, reward=lambda images: images.flatten(1).mean(1),
            reward_scale=0.0, num_particles=3, seed=3, pipeline_kwargs=dict(arguments), max_batch=3,
        ).samples  # fmt: skip


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_a_prompt_does_not_depend_on_its_neighbors(name):
    pipeline, arguments = rows()[name].make()
    assert shares_encoding(pipeline, arguments)
    encode = pipeline.vae.encode
    both = _steer(pipeline, arguments, ["a cat", "a dog"], [0, 1])
    for b, prompt in enumerate(["a cat", "a dog"]):
        assert torch.equal(_steer(pipeline, arguments, [prompt], [b])[0], both[b])
    assert pipeline.vae.encode == encode and "encode" not in vars(pipeline.vae)


def test_one_prompt_is_the_pipelines_own_call_with_one_picture():
    pipeline, arguments = rows()["StableDiffusionInpaintPipeline"].make()
    sources = group_generators(3, 1) * 3
    own = pipeline(
        prompt=["a cat"] * 3, generator=sources, output_type="pt", num_images_per_prompt=1, **arguments
    ).images  # fmt: skip
    found = fklit.steer(
        pipeline, "a cat", reward=lambda images: images.flatten(1).mean(1), reward_scale=0.0, num_particles=3, seed=3,
        pipeline_kwargs=dict(arguments),
    ).samples[0]  # fmt: skip
    assert torch.equal(found, own)


def test_a_picture_for_each_prompt_is_drawn_as_the_pipeline_draws_it():
    pipeline, arguments = rows()["FluxImg2ImgPipeline"].make()
    two = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert not shares_encoding(pipeline, {**arguments, "image": two})


def test_equal_posteriors_are_drawn_once_for_each_generator():
    pipeline, _ = rows()["FluxImg2ImgPipeline"].make()
    first, second = (torch.Generator().manual_seed(i) for i in range(2))
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    with shared_encodings(pipeline, 2):
        draws = [pipeline.vae.encode(picture).latent_dist.sample(source) for source in (first, first, second)]
        other = pipeline.vae.encode(-picture).latent_dist.sample(first)
        again = pipeline.vae.encode(picture).latent_dist.sample(first)
        assert pipeline.vae.encode(picture).latent_dist.mean.shape == draws[0].shape
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(draws[0], pipeline.vae.encode(picture).latent_dist.sample(torch.Generator().manual_seed(0)))
    assert not torch.equal(draws[0], other)
    assert not torch.equal(draws[0], again), "a second picture that is equal is a draw of its own"
