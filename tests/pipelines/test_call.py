"""The arguments of a call: for every class the samples are the pipeline's own, bit for bit, or a name is refused."""

import pytest
import tiny_pipelines
import torch
from PIL import Image
from tiny import tiny_ddpm, tiny_img2img, tiny_inpaint, tiny_sdxl, tiny_stable_diffusion

import fklit
from fklit.feynman_kac import group_generators
from fklit.pipelines.call import build_call, call_parameters
from fklit.pipelines.call_rows import count_prompts, returns_raw_tensors
from fklit.pipelines.interception import UnsupportedPipelineError

PROMPTS = ["a cat", "a dog"]
FOUR = ["a cat", "a cat", "a dog", "a dog"]
TWICE = {"prompt": PROMPTS, "num_images_per_prompt": 2}


def _random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _picture(seed):
    return Image.fromarray((_random(16, 16, 3, seed=seed) * 255).byte().numpy())


TENSORS = _random(2, 3, 16, 16)
EACH = TENSORS.repeat_interleave(2, dim=0)
LISTED = [_picture(0), _picture(1)]
EMBEDS, NEGATIVE, MASK = _random(2, 5, 16), _random(2, 5, 16, seed=1), torch.ones(2, 5)
POOLED = _random(2, 16, seed=2)


def _rows(value):
    return value.repeat_interleave(2, dim=0)


# Name, builder, prompt, pipeline_kwargs, and what the pipeline's own call is given in their place.
CASES = [
    ("SD", tiny_stable_diffusion, PROMPTS, {}, TWICE),
    ("SD, one negative prompt", tiny_stable_diffusion, PROMPTS, {"negative_prompt": "dark"},
     {**TWICE, "negative_prompt": ["dark", "dark"]}),
    ("SD, two negative prompts", tiny_stable_diffusion, PROMPTS, {"negative_prompt": ["dark", "red"]},
     {**TWICE, "negative_prompt": ["dark", "red"]}),
    ("SD, embeddings", tiny_stable_diffusion, None, {"prompt_embeds": EMBEDS, "negative_prompt_embeds": NEGATIVE},
     {"prompt_embeds": EMBEDS, "negative_prompt_embeds": NEGATIVE, "num_images_per_prompt": 2}),
    ("SD, embeddings with prompts for the reward", tiny_stable_diffusion, PROMPTS,
     {"prompt_embeds": EMBEDS, "negative_prompt_embeds": NEGATIVE},
     {"prompt_embeds": EMBEDS, "negative_prompt_embeds": NEGATIVE, "num_images_per_prompt": 2}),
    ("SD, embeddings and a negative prompt", tiny_stable_diffusion, None,
     {"prompt_embeds": EMBEDS[:, :1].expand(2, 24, 16), "negative_prompt": "dark"},
     {"prompt_embeds": _rows(EMBEDS[:, :1].expand(2, 24, 16)), "negative_prompt": ["dark"] * 4}),
    ("SDXL", tiny_sdxl, PROMPTS, {}, TWICE),
    ("SDXL, prompt_2", tiny_sdxl, PROMPTS, {"prompt_2": "in snow", "negative_prompt_2": ["red", "blue"]},
     {**TWICE, "prompt_2": ["in snow"] * 2, "negative_prompt_2": ["red", "blue"]}),
    ("SDXL, pooled embeddings", tiny_sdxl, None,
     {"prompt_embeds": _random(2, 5, 32), "pooled_prompt_embeds": POOLED,
      "negative_prompt_embeds": _random(2, 5, 32, seed=3), "negative_pooled_prompt_embeds": POOLED.flip(0)},
     {"prompt_embeds": _rows(_random(2, 5, 32)), "pooled_prompt_embeds": _rows(POOLED),
      "negative_prompt_embeds": _rows(_random(2, 5, 32, seed=3)),
      "negative_pooled_prompt_embeds": _rows(POOLED.flip(0))}),
    ("img2img, one image", tiny_img2img, PROMPTS, {"image": LISTED[0], "strength": 0.6},
     {**TWICE, "image": LISTED[0], "strength": 0.6}),
    ("img2img, an image a prompt", tiny_img2img, PROMPTS, {"image": LISTED, "strength": 0.6},
     {"prompt": FOUR, "image": [LISTED[0]] * 2 + [LISTED[1]] * 2, "strength": 0.6}),
    ("img2img, an image a particle", tiny_img2img, PROMPTS, {"image": _random(4, 3, 16, 16), "strength": 0.6},
     {"prompt": FOUR, "image": _random(4, 3, 16, 16), "strength": 0.6}),
    ("SDXL img2img", tiny_pipelines.tiny_sdxl_img2img, PROMPTS, {"image": TENSORS, "strength": 0.6},
     {"prompt": FOUR, "image": EACH, "strength": 0.6}),
    ("inpainting, an image and a mask a prompt", tiny_inpaint, PROMPTS,
     {"image": TENSORS, "mask_image": TENSORS[:, :1].round(), "height": 16, "width": 16},
     {"prompt": FOUR, "image": EACH, "mask_image": EACH[:, :1].round(), "height": 16, "width": 16}),
    ("ControlNet, one image", tiny_pipelines.tiny_controlnet, PROMPTS, {"image": LISTED[0]},
     {**TWICE, "image": LISTED[0]}),
    ("ControlNet, an image a prompt", tiny_pipelines.tiny_controlnet, PROMPTS, {"image": LISTED},
     {**TWICE, "image": LISTED}),
    ("ControlNet, tensors", tiny_pipelines.tiny_controlnet, PROMPTS, {"image": TENSORS},
     {"prompt": FOUR, "image": EACH}),
    ("two ControlNets, an image each", tiny_pipelines.tiny_multi_controlnet, PROMPTS, {"image": LISTED},
     {**TWICE, "image": LISTED}),
    ("SDXL ControlNet", tiny_pipelines.tiny_sdxl_controlnet, PROMPTS, {"image": TENSORS},
     {"prompt": FOUR, "image": EACH}),
    ("InstructPix2Pix", tiny_pipelines.tiny_instruct_pix2pix, PROMPTS, {"image": TENSORS},
     {"prompt": FOUR, "image": EACH}),
    ("image variation, one image", tiny_pipelines.tiny_image_variation, None, {"image": LISTED[0]},
     {"image": LISTED[0], "num_images_per_prompt": 2}),
    ("image variation, two images", tiny_pipelines.tiny_image_variation, None, {"image": LISTED},
     {"image": [LISTED[0]] * 2 + [LISTED[1]] * 2}),
    ("StableUnCLIP img2img", tiny_pipelines.tiny_unclip_img2img, PROMPTS, {"image": LISTED, "noise_level": 0},
     {"prompt": FOUR, "image": [LISTED[0]] * 2 + [LISTED[1]] * 2, "noise_level": 0}),
    ("Kandinsky decoder", tiny_pipelines.tiny_kandinsky_decoder, None,
     {"image_embeds": POOLED, "negative_image_embeds": -POOLED, "height": 16, "width": 16},
     {"image_embeds": POOLED, "negative_image_embeds": -POOLED, "height": 16, "width": 16,
      "num_images_per_prompt": 2}),
    ("IF", tiny_pipelines.tiny_if, PROMPTS, {}, TWICE),
    ("IF super-resolution", tiny_pipelines.tiny_if_super_resolution, PROMPTS,
     {"image": TENSORS, "noise_level": 20}, {**TWICE, "image": TENSORS, "noise_level": 20}),
    ("PixArt", tiny_pipelines.tiny_pixart, PROMPTS, {"use_resolution_binning": False},
     {**TWICE, "use_resolution_binning": False}),
    ("PixArt, embeddings and masks", tiny_pipelines.tiny_pixart, None,
     {"prompt_embeds": EMBEDS, "prompt_attention_mask": MASK, "negative_prompt_embeds": NEGATIVE,
      "negative_prompt_attention_mask": MASK, "negative_prompt": None, "use_resolution_binning": False},
     {"prompt_embeds": EMBEDS, "prompt_attention_mask": MASK, "negative_prompt_embeds": NEGATIVE,
      "negative_prompt_attention_mask": MASK, "negative_prompt": None, "use_resolution_binning": False,
      "num_images_per_prompt": 2}),
    ("DiT", tiny_pipelines.tiny_dit, None, {"class_labels": [3, 7], "guidance_scale": 1.0},
     {"class_labels": [3, 3, 7, 7], "guidance_scale": 1.0}),
    ("LDM super-resolution", tiny_pipelines.tiny_ldm_super_resolution, None, {"image": TENSORS}, {"image": EACH}),
    ("DDPM", tiny_ddpm, ["", ""], {}, {"batch_size": 4}),
]  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """Pipelines by builder, each built once."""
    found = {}
    return lambda build: found.setdefault(build, None) or found.update({build: build()}) or found[build]


@pytest.mark.parametrize(("build", "prompt", "given", "own"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_the_samples_are_those_of_the_pipelines_own_call(made, build, prompt, given, own):
    pipeline = made(build)
    shared = {"num_inference_steps": 3}
    result = fklit.steer(
        pipeline, prompt, reward=lambda images: images.mean((1, 2, 3)), reward_scale=0, potential="terminal",
        num_particles=2, pipeline_kwargs={**shared, **given},
    )  # fmt: skip
    generators = [generator for generator in group_generators(0, result.num_groups) for _ in range(2)]
    raw = returns_raw_tensors(pipeline)  # whose tensors are not in [0, 1]
    images = pipeline(**shared, **own, generator=generators, output_type="np" if raw else "pt").images
    images = torch.from_numpy(images).permute(0, 3, 1, 2) if raw else images
    assert torch.equal(result.samples.flatten(0, 1), images.float())
    assert result.num_groups == (1 if own.get("image") is LISTED[0] and prompt is None else 2)
    assert not torch.equal(images[0], images[1])


@pytest.mark.filterwarnings("ignore:You have passed 2 text prompts:FutureWarning")
def test_a_prompts_samples_are_its_own(made):
    """Pictures go to their prompts, and not to those of the neighbors: the second prompt alone gives the same."""
    for build in (tiny_img2img, tiny_pipelines.tiny_controlnet, tiny_pipelines.tiny_instruct_pix2pix):
        both = _terminal(made(build), PROMPTS, {"image": TENSORS})
        alone = _terminal(made(build), PROMPTS[1:], {"image": TENSORS[1:]}, prompt_indices=[1])
        torch.testing.assert_close(both.samples[1], alone.samples[0], rtol=1e-4, atol=1e-4)


def _terminal(pipeline, prompt, given, **options):
    return fklit.steer(
        pipeline, prompt, reward=lambda images: images.mean((1, 2, 3)), reward_scale=0, potential="terminal",
        num_particles=2, pipeline_kwargs={"num_inference_steps": 3, **given}, **options,
    )  # fmt: skip


REFUSED = [
    (tiny_stable_diffusion, PROMPTS, {"prompt_embeds": _random(3, 5, 16)},
     r"\['prompt_embeds'\] expected 1 entry \(for all prompts\), 2 \(one a prompt\) or 4 \(one a particle\), got 3"),
    (tiny_stable_diffusion, PROMPTS, {"negative_prompt": ["a", "b", "c"]}, r"\['negative_prompt'\] expected .*, got 3"),
    (tiny_sdxl, PROMPTS, {"prompt_2": ["a", "b", "c"]}, r"\['prompt_2'\] expected .*, got 3"),
    (tiny_img2img, PROMPTS, {"image": LISTED[:1] * 3}, r"\['image'\] expected .*, got 3"),
    (tiny_pipelines.tiny_dit, PROMPTS, {"class_labels": [1, 2, 3]}, r"\['class_labels'\] expected .*, got 3"),
    (tiny_stable_diffusion, PROMPTS, {"latents": _random(2, 4, 8, 8)}, r"\['latents'\] expected 4 rows, one a"),
    (tiny_stable_diffusion, PROMPTS, {"ip_adapter_image": LISTED},
     r"\['ip_adapter_image'\] .* got 2 prompts.*batch_size=1"),
    (tiny_pipelines.tiny_ldm_super_resolution, None, {"image": LISTED[0]},
     r"expected a tensor \(B, C, H, W\), got a Image"),
    (tiny_pipelines.tiny_ldm_super_resolution, None, {}, r"expected a tensor \(B, C, H, W\), got a NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "prompt", "given", "message"), REFUSED)
def test_what_fits_neither_prompts_nor_particles_is_refused_by_name(made, build, prompt, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        _terminal(made(build), prompt, given)
    assert "\n" not in str(caught.value)


def test_a_dit_with_guidance_runs_or_is_refused(made):
    """It steps both halves of guidance at once, which no row of a particle matches."""
    with pytest.raises(UnsupportedPipelineError, match=r"DiTPipeline to step 4 .*guidance_scale=1") as error:
        _terminal(made(tiny_pipelines.tiny_dit), None, {"class_labels": [3, 7], "guidance_scale": 4.0})
    assert "num_images_per_prompt" not in str(error.value)


@pytest.mark.parametrize(("labels", "expected"), [(5, [5, 5]), ([5], [5, 5]), (torch.tensor([5, 6]), [5, 5, 6, 6])])
def test_class_labels_may_be_one_number_a_list_or_a_tensor(made, labels, expected):
    pipeline = made(tiny_pipelines.tiny_dit)
    prompts = [""] * count_prompts(pipeline, {"class_labels": labels})
    generators = group_generators(0, 2 * len(prompts))
    assert list(build_call(pipeline, prompts, 2, generators, {"class_labels": labels})["class_labels"]) == expected


def test_an_ip_adapter_keeps_one_prompt_with_the_pipeline(made):
    given = build_call(made(tiny_stable_diffusion), ["a"], 2, group_generators(0, 2), {"ip_adapter_image": LISTED[0]})
    assert given["num_images_per_prompt"] == 2 and given["prompt"] == ["a"]
    assert given["ip_adapter_image"] is LISTED[0]


def test_prompts_are_repeated_where_num_videos_per_prompt_is_ignored(made):
    """AnimateDiff: four videos, of which each is as with its prompt alone."""
    pipeline = made(tiny_pipelines.tiny_animatediff)
    options = {"num_inference_steps": 2, "num_frames": 2, "height": 16, "width": 16}
    sources = [source for source in group_generators(0, 2) for _ in range(2)]
    given = build_call(pipeline, PROMPTS, 2, sources, options)
    assert given["prompt"] == FOUR and given["num_videos_per_prompt"] == 1
    assert len(pipeline(**given).frames) == 4


def test_a_subclass_that_hands_its_arguments_on_has_those_of_its_base(made):
    base = type(made(tiny_stable_diffusion))

    class Passes(base):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    class Adds(Passes):
        def __call__(self, prompt, extra=None, **kwargs):
            assert extra == 1
            return super().__call__(prompt, **kwargs)

    class Names(base):
        def __call__(self, prompt, num_inference_steps=2, generator=None):
            raise AssertionError

    parts = made(tiny_stable_diffusion).components
    plain = made(tiny_stable_diffusion)
    own = _terminal(plain, PROMPTS, {}).samples
    passes = Passes(**parts, requires_safety_checker=False)
    adds = Adds(**parts, requires_safety_checker=False)
    for pipeline in (passes, adds):
        pipeline.set_progress_bar_config(disable=True)
    assert call_parameters(passes).keys() == call_parameters(plain).keys()
    assert torch.equal(_terminal(passes, PROMPTS, {}).samples, own)
    assert torch.equal(_terminal(adds, PROMPTS, {"extra": 1}).samples, own)
    with pytest.raises(TypeError, match="did you mean 'guidance_scale'"):
        _terminal(passes, PROMPTS, {"guidance_scal": 2.0})
    assert set(call_parameters(object.__new__(Names))) == {"prompt", "num_inference_steps", "generator"}


def test_a_pipeline_that_names_no_arguments_is_refused():
    class Anything:
        def __call__(self, state=None, **kwargs):
            raise AssertionError

    with pytest.raises(UnsupportedPipelineError, match="Anything, which takes any; wrap it in a class whose __call__"):
        fklit.steer(Anything(), "a cat", reward=lambda images: images, reward_scale=1.0)


@pytest.mark.parametrize(
    ("steps", "options", "message"),
    [
        (1, {}, r"at a reward_schedule .* 1 step\(s\), .*use potential='terminal' \(best-of-n\)"),
        (2, {}, None),
        (2, {"reward_schedule": fklit.Schedule(indices=(1,))}, None),
    ],
)
def test_runs_of_few_steps_say_what_cannot_be_steered(made, steps, options, message):
    given = {"reward": lambda images: images.mean((1, 2, 3)), "reward_scale": 1.0, "num_particles": 2, **options}
    call = {"num_inference_steps": steps, "eta": 1.0}
    if message is not None:
        with pytest.raises(ValueError, match=message):
            fklit.steer(made(tiny_stable_diffusion), "a cat", **given, pipeline_kwargs=call)
    else:
        with pytest.warns(UserWarning, match=r"no step of this run .* can resample.*potential='terminal'") as caught:
            fklit.steer(made(tiny_stable_diffusion), "a cat", **given, pipeline_kwargs=call)
        assert len(caught) == 1
    fklit.steer(made(tiny_stable_diffusion), "a cat", **given, potential="terminal", pipeline_kwargs=call)


@pytest.mark.parametrize("name", ["timesteps", "sigmas"])
def test_steps_of_ones_own_are_refused_where_another_scheduler_runs(name):
    from diffusers import HeunDiscreteScheduler

    pipeline = tiny_stable_diffusion()
    pipeline.scheduler = HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match=rf"expected no '{name}' with .*, which runs in place of HeunDiscrete.*'keep'"):
        fklit.steer(
            pipeline,
            "a cat",
            reward=lambda images: images.mean((1, 2, 3)),
            reward_scale=1.0,
            num_particles=2,
            pipeline_kwargs={name: [900, 500, 100]},
        )
