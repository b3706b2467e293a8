"""The interception: invisible when it does nothing, exact when it resamples, gone when it is over."""

import copy

import pytest
import torch
from schedulers import STEERABLE, make
from tiny import tiny_ddpm, tiny_img2img, tiny_inpaint, tiny_sdxl, tiny_stable_diffusion

from fklit.pipelines.interception import Interception, UnsupportedPipelineError

SLOTS = 4


class Hook:
    """Resamples by the given ancestors at one call, and remembers what it saw."""

    def __init__(self, at=None, ancestors=None):
        self.at, self.ancestors, self.calls, self.num_steps = at, ancestors, [], None

    def begin(self, num_steps, noisy):
        self.num_steps, self.noisy = num_steps, noisy

    def step(self, call):
        self.calls.append(call)
        return self.ancestors if call.index == self.at else None


@pytest.fixture(scope="module")
def stable_diffusion():
    return tiny_stable_diffusion()


def _latents(seed=0):
    return torch.randn(SLOTS, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def _same_noise():
    """Slots that all draw the same noise, so that a clone must repeat its ancestor."""
    return [torch.Generator().manual_seed(5) for _ in range(SLOTS)]


def _call(pipeline, generators, steps=5, **options):
    given = {"latents": _latents(), "guidance_scale": 3.0, "output_type": "latent", **options}
    return pipeline(
        prompt="a cat", num_images_per_prompt=SLOTS, num_inference_steps=steps, generator=generators, **given
    ).images


@pytest.mark.parametrize(
    "name",
    [
        n if n.startswith(("DDIM", "DPMSolverM", "Euler")) else pytest.param(n, marks=pytest.mark.slow)
        for n in STEERABLE
    ],
)
def test_every_clone_repeats_its_ancestor(stable_diffusion, name):
    pipeline = stable_diffusion
    pipeline.scheduler = make(name)
    eta = {"eta": 1.0} if name.startswith(("DDIM", "TCD")) else {}
    reference = _call(pipeline, _same_noise(), **eta)

    idle = Hook()
    with Interception(pipeline, idle, generators=_same_noise()) as run:
        untouched = _call(pipeline, None, **eta)
    assert torch.equal(untouched, reference), "an idle interception must be invisible"
    assert run.num_steps == run.steps_taken == len(idle.calls) == idle.num_steps
    assert run.denoiser_calls == 2 * SLOTS * run.num_steps
    assert not torch.equal(reference[0], reference[1])

    ancestors = torch.tensor([2, 0, 2, 1])
    for at in range(run.num_steps):
        with Interception(pipeline, Hook(at, ancestors), generators=_same_noise()):
            resampled = _call(pipeline, None, **eta)
        assert torch.equal(resampled, reference[ancestors]), f"{name}: resampling at call {at} is not exact"


@pytest.mark.parametrize("steps", [3, 4])
def test_state_of_a_solver_is_told_by_its_full_shape(stable_diffusion, steps):
    """With 4 samples, 4 noise levels of a grid (3 steps and the end) or 4 timesteps are not one a sample."""
    pipeline = stable_diffusion
    pipeline.scheduler = make("DPMSolverMultistepScheduler:sde")
    reference = _call(pipeline, _same_noise(), steps)
    ancestors = torch.tensor([2, 0, 2, 1])
    for at in range(steps):
        with Interception(pipeline, Hook(at, ancestors), generators=_same_noise()):
            assert torch.equal(_call(pipeline, None, steps), reference[ancestors]), f"resampling at call {at}"


@pytest.mark.parametrize("build", [tiny_stable_diffusion, tiny_sdxl])
def test_step_call_shows_the_parents(build):
    pipeline, hook = build(), Hook()
    with Interception(pipeline, hook, generators=_same_noise()):
        final = _call(pipeline, None)
    first = hook.calls[0]
    torch.testing.assert_close(first.sample, _latents() * pipeline.scheduler.init_noise_sigma)
    assert first.denoised().shape == first.sample.shape == final.shape
    assert [call.index for call in hook.calls] == list(range(5))


def test_image_to_image_counts_its_own_steps():
    pipeline, hook = tiny_img2img(), Hook()
    image = torch.rand(1, 3, 16, 16)
    with Interception(pipeline, hook, generators=_same_noise()) as run:
        pipeline(
            prompt="a cat", image=image, strength=0.5, num_inference_steps=8, num_images_per_prompt=SLOTS,
            generator=_same_noise(), output_type="latent",
        )  # fmt: skip
    assert hook.num_steps == run.steps_taken == 4


def test_unconditional_pixels():
    pipeline, hook = tiny_ddpm(), Hook()
    reference = pipeline(batch_size=SLOTS, generator=_same_noise(), num_inference_steps=4, output_type="pt").images
    with Interception(pipeline, hook) as run:
        images = pipeline(batch_size=SLOTS, generator=_same_noise(), num_inference_steps=4, output_type="pt").images
    assert torch.equal(images, reference)
    assert run.denoiser_calls == 4 * SLOTS
    assert run.decoder.last is None


def _state(pipeline):
    return (
        "step" in pipeline.scheduler.__dict__,
        "decode" in pipeline.vae.__dict__,
        "_compiled_call_impl" in pipeline.unet.__dict__,
        pipeline.scheduler,
    )


def test_an_exception_restores_the_pipeline(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("PNDMScheduler")
    before = _state(pipeline)

    class Failing(Hook):
        def step(self, call):
            raise RuntimeError("on purpose")

    with (
        pytest.raises(RuntimeError, match="on purpose"),
        Interception(pipeline, Failing(), scheduler=make("DDIMScheduler")),
    ):
        assert _state(pipeline) != before
        _call(pipeline, None)
    assert _state(pipeline) == before


def test_a_swapped_scheduler_and_eta(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    reference = _call(pipeline, _same_noise(), eta=1.0)
    pipeline.scheduler = make("PNDMScheduler")
    with Interception(pipeline, Hook(), generators=_same_noise(), scheduler=make("DDIMScheduler"), eta=1.0):
        swapped = _call(pipeline, None)
    assert torch.equal(swapped, reference)
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"


def test_micro_batches_of_one_size_give_the_same_bits(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    whole = _call(pipeline, _same_noise(), output_type="pt")
    with Interception(pipeline, Hook(), max_batch=3) as run:
        chunked = _call(pipeline, _same_noise(), output_type="pt")
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-5)
    assert run.denoiser_calls == 2 * SLOTS * 5, "padding is not counted"
    assert run.decoder.decodes == SLOTS
    with Interception(pipeline, Hook(), max_batch=3):
        alone = pipeline(
            prompt="a cat", num_inference_steps=5, generator=_same_noise()[:1], latents=_latents()[1:2],
            guidance_scale=3.0, output_type="pt",
        ).images  # fmt: skip
    assert torch.equal(alone[0], chunked[1]), "a row must not depend on what else is in the batch"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_denoisers(how):
    pipeline = tiny_stable_diffusion()
    reference = _call(pipeline, _same_noise(), eta=1.0)
    if how == "wrapped":
        pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    else:
        pipeline.unet.compile(backend="eager")
    ancestors = torch.tensor([3, 3, 0, 1])
    with Interception(pipeline, Hook(2, ancestors), generators=_same_noise(), max_batch=SLOTS) as run:
        images = _call(pipeline, None, eta=1.0)
    torch.testing.assert_close(images, reference[ancestors], rtol=1e-4, atol=1e-4)
    assert run.denoiser_calls == 2 * SLOTS * 5
    compiled = pipeline.unet.__dict__.get("_compiled_call_impl")
    assert (compiled is None) == (how == "wrapped"), "the compiled call must be back in place"


def test_offloaded_modules_keep_their_hooks():
    """Accelerate rewrites ``forward`` when it offloads, and takes its hooks away at the end of every call."""
    from accelerate import cpu_offload_with_hook

    pipeline = tiny_stable_diffusion()
    reference = _call(pipeline, _same_noise(), eta=1.0)
    _, hook = cpu_offload_with_hook(pipeline.unet, execution_device=torch.device("cpu"))
    ancestors = torch.tensor([3, 3, 0, 1])
    with Interception(pipeline, Hook(2, ancestors), generators=_same_noise()) as run:
        images = _call(pipeline, None, eta=1.0)
        hook.remove()
    assert torch.equal(images, reference[ancestors])
    assert run.denoiser_calls == 2 * SLOTS * 5
    assert torch.equal(_call(pipeline, _same_noise(), eta=1.0), reference)


def test_latents_edited_between_steps_are_refused(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")

    def edit(pipeline, index, timestep, tensors):
        return {"latents": tensors["latents"] + 1}

    with pytest.raises(UnsupportedPipelineError, match="edits latents between steps"), Interception(pipeline, Hook()):
        _call(pipeline, None, callback_on_step_end=edit)


def test_pipelines_that_cannot_be_intercepted_are_refused():
    with pytest.raises(UnsupportedPipelineError, match=r"expected a diffusers pipeline .* got object"):
        Interception(object(), Hook()).__enter__()
    with pytest.raises(ValueError, match="max_batch=0"):
        Interception(object(), Hook(), max_batch=0)


def test_inpainting_is_decided_by_what_it_does():
    """Its 4-channel form edits latents between steps: refused where particles may be resampled, else as it is."""
    pipeline = tiny_inpaint()
    pipeline.scheduler = make("DDIMScheduler")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < 8).float().expand(1, 1, 16, 16)
    given = {"image": image, "mask_image": mask, "height": 16, "width": 16, "latents": None, "eta": 1.0}
    reference = _call(pipeline, _same_noise(), **given)
    with pytest.raises(UnsupportedPipelineError, match="edits latents between steps"):
        with Interception(pipeline, Hook(), generators=_same_noise()):
            _call(pipeline, None, **given)
    sources = _same_noise()
    with Interception(pipeline, Hook(), generators=sources, resamples=False, may_edit=True):
        assert torch.equal(_call(pipeline, sources, **given), reference)


def test_conditions_that_differ_between_particles_move_with_them(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    width = pipeline.text_encoder.config.hidden_size
    embeds = torch.randn(SLOTS, 77, width, generator=torch.Generator().manual_seed(1))
    negative = torch.randn(SLOTS, 77, width, generator=torch.Generator().manual_seed(2))

    def call(generators):
        return pipeline(
            prompt_embeds=embeds, negative_prompt_embeds=negative, num_inference_steps=5, generator=generators,
            latents=_latents(), guidance_scale=3.0, output_type="latent", eta=1.0,
        ).images  # fmt: skip

    reference, ancestors = call(_same_noise()), torch.tensor([2, 0, 2, 1])
    for at in range(5):
        with Interception(pipeline, Hook(at, ancestors), generators=_same_noise(), group_size=SLOTS):
            assert torch.equal(call(None), reference[ancestors]), f"resampling at call {at}"


def test_a_cache_of_rows_is_refused_where_rows_move(stable_diffusion, monkeypatch):
    monkeypatch.setattr(type(stable_diffusion.unet), "is_cache_enabled", True, raising=False)
    for options in ({}, {"resamples": False, "max_batch": 2}):
        with pytest.raises(UnsupportedPipelineError, match=r"caches .*disable_cache\(\)"):
            Interception(stable_diffusion, Hook(), **options).__enter__()
    with Interception(stable_diffusion, Hook(), resamples=False):
        pass


def test_two_runs_of_one_pipeline_at_once_are_refused(stable_diffusion):
    """Nested, or over networks that two pipelines share; afterwards all is as before."""

    class Twin:
        unet, vae, scheduler = stable_diffusion.unet, stable_diffusion.vae, make("DDPMScheduler")

    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    parts = (pipeline.unet, pipeline.vae, pipeline.scheduler)
    reference = _call(pipeline, _same_noise(), eta=1.0)
    before = [set(part.__dict__) for part in parts]
    with Interception(pipeline, Hook(), generators=_same_noise()) as run:
        for other in (pipeline, Twin()):
            with pytest.raises(UnsupportedPipelineError, match="is being steered already; wait for that run"):
                Interception(other, Hook()).__enter__()
        assert torch.equal(_call(pipeline, None, eta=1.0), reference)
    assert run.denoiser_calls == 2 * SLOTS * 5
    assert [set(part.__dict__) for part in parts] == before
    with Interception(pipeline, Hook()):
        pass


def test_methods_that_the_user_has_replaced_are_put_back():
    pipeline = tiny_stable_diffusion()
    pipeline.scheduler = make("DDIMScheduler")
    decode, step = pipeline.vae.decode, pipeline.scheduler.step
    pipeline.vae.decode, pipeline.scheduler.step = decode, step
    with Interception(pipeline, Hook(), generators=_same_noise()):
        _call(pipeline, None, output_type="pt")
    assert pipeline.vae.__dict__["decode"] is decode and pipeline.scheduler.__dict__["step"] is step


def test_wrong_number_of_samples_is_refused(stable_diffusion):
    with (
        pytest.raises(UnsupportedPipelineError, match=r"to step 2 samples \(prompts x num_particles\), got 4"),
        Interception(stable_diffusion, Hook(), generators=_same_noise()[:2]),
    ):
        _call(stable_diffusion, None)


def test_a_second_call_within_the_context_is_refused(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    with pytest.raises(UnsupportedPipelineError, match="call it once"), Interception(pipeline, Hook()):
        _call(pipeline, None)
        _call(pipeline, None)


def test_a_copy_of_the_scheduler_made_meanwhile_is_harmless(stable_diffusion):
    pipeline = stable_diffusion
    pipeline.scheduler = make("DDIMScheduler")
    with Interception(pipeline, Hook()):
        duplicate = copy.deepcopy(pipeline.scheduler)
    assert "step" not in pipeline.scheduler.__dict__
    assert duplicate is not pipeline.scheduler
