"""Conditions that a pipeline draws for each particle move with the particle: a clone ends as its ancestor does."""

import pytest
import tiny_pipelines
import torch

from fklit.pipelines.interception import Interception

SLOTS, STEPS = 4, 4
ANCESTORS = torch.tensor([2, 0, 2, 1])


class Resample:
    """Resamples once, before the scheduler's step of one call."""

    def __init__(self, at=None):
        self.at = at

    def begin(self, num_steps, noisy):
        assert num_steps == STEPS

    def step(self, call):
        return ANCESTORS if call.index == self.at else None


def _random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unclip(pipeline, generators):
    """As fklit calls it: the prompt and the picture repeated, each embedding noised by itself."""
    picture = (_random(1, 3, 16, 16, seed=1) / 4 + 0.5).clamp(0, 1)
    return pipeline(
        image=picture.repeat(SLOTS, 1, 1, 1), prompt=["a cat"] * SLOTS, noise_level=400, num_inference_steps=STEPS,
        generator=generators, output_type="latent",
    ).images  # fmt: skip


def _kandinsky(pipeline, generators):
    """As from a prior with several samples a prompt: an embedding for each."""
    embeds = _random(SLOTS, 16, seed=2)
    return pipeline(
        image_embeds=embeds, negative_image_embeds=-embeds, height=16, width=16, num_inference_steps=STEPS,
        generator=generators, output_type="latent",
    ).images  # fmt: skip


def _super_resolution(pipeline, generators):
    return pipeline(
        prompt="a cat", image=_random(1, 3, 16, 16, seed=3), noise_level=250, num_images_per_prompt=SLOTS,
        num_inference_steps=STEPS, generator=generators, output_type="pt",
    ).images  # fmt: skip


CASES = {
    "StableUnCLIP, a noised embedding": (tiny_pipelines.tiny_unclip_img2img, _unclip),
    "Kandinsky, embeddings of a prior": (tiny_pipelines.tiny_kandinsky_decoder, _kandinsky),
    "IF super-resolution, a noised image": (tiny_pipelines.tiny_if_super_resolution, _super_resolution),
}


def _run(pipeline, call, hook, group_size=SLOTS):
    drawn = [torch.Generator().manual_seed(10 + slot) for slot in range(SLOTS)]  # latents and conditions: each its own
    steps = [torch.Generator().manual_seed(5) for _ in range(SLOTS)]  # noise of the steps: the same for all
    with Interception(pipeline, hook, generators=steps, group_size=group_size):
        return call(pipeline, drawn)


@pytest.mark.parametrize("name", CASES)
def test_a_clone_ends_as_its_ancestor(name):
    build, call = CASES[name]
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    reference = _run(pipeline, call, Resample())
    assert all(not torch.equal(reference[0], reference[slot]) for slot in range(1, SLOTS))
    for at in range(STEPS - 1):
        resampled = _run(pipeline, call, Resample(at))
        torch.testing.assert_close(resampled, reference[ANCESTORS], rtol=0, atol=2e-6)
    # The conditions do differ: without moving them, clones go astray.
    astray = _run(pipeline, call, Resample(0), group_size=1)
    assert float((astray - reference[ANCESTORS]).abs().max()) > 1e-4
