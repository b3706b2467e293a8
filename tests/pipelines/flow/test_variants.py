"""Variants of flow-matching pipelines: skip-layer guidance, half precision, and Wan 2.2 with two transformers."""

import copy
import warnings

import pytest
import torch
from tiny_flow import make

import fklit
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.stochasticity import SchedulerSwapWarning

PROMPTS = ["a cat", "a dog"]
SKIPPING = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 0.5}


def _steer(pipeline, arguments, **options):
    given = {
        "num_particles": 3, "reward": lambda images: images.flatten(1).mean(1), "reward_scale": 1e5, "seed": 3,
        "ess_threshold": 1.0, "reward_schedule": fklit.Schedule(0, 3),
        "pipeline_kwargs": {**arguments, "num_inference_steps": 6},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **{**given, **options})


def _plain(pipeline, arguments):
    sources = [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(3)]
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    output = pipeline(prompt=prompts, generator=sources, num_inference_steps=6, output_type="pt", **arguments)
    return getattr(output, "images", getattr(output, "frames", None)).float()


def test_skip_layer_guidance_is_steered_and_its_third_prediction_not_corrected():
    pipeline, arguments = make("sd3")
    given = {**arguments, **SKIPPING}
    result = _steer(pipeline, given)
    # A third evaluation at the first steps: 2 x 6 rows a step, and 6 more at two of them.
    assert result.resampled.any(dim=0).all() and result.budget.denoiser_calls == 6 * 12 + 2 * 6
    assert torch.equal(_steer(pipeline, given, reward_scale=0.0).samples.flatten(0, 1), _plain(pipeline, given))
    without = {key: value for key, value in given.items() if key != "guidance_scale"}
    message = r"model output of StableDiffusion3Pipeline is not unconditional"
    with warnings.catch_warnings(), pytest.raises(UnsupportedPipelineError, match=message):
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        fklit.correct(
            pipeline, PROMPTS, guidance_scale=3.0, num_particles=3,
            pipeline_kwargs={**without, "num_inference_steps": 6},
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd3", "flux-dev", "wan"])
def test_bfloat16_is_steered_and_at_scale_0_the_pipelines_own(family):
    pipeline, arguments = make(family)
    encode = pipeline.encode_prompt

    def low(*args, **kwargs):
        found = encode(*args, **kwargs)
        return tuple(item.bfloat16() if item.is_floating_point() else item for item in found)

    pipeline.encode_prompt = low
    pipeline.to(torch.bfloat16)
    result = _steer(pipeline, arguments)
    assert result.resampled.any(dim=0).all() and result.samples.isfinite().all()
    own = _plain(pipeline, arguments)
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples.reshape(own.shape), own)


@pytest.mark.slow
def test_wan_2_2_is_steered_over_both_transformers():
    from diffusers import WanPipeline

    base, arguments = make("wan")
    second = copy.deepcopy(base.transformer)
    for parameter in second.parameters():
        parameter.mul_(1.1)
    pipeline = WanPipeline(
        None, None, base.vae, base.scheduler, base.transformer, transformer_2=second, boundary_ratio=0.8
    )
    pipeline.encode_prompt = base.encode_prompt
    pipeline.set_progress_bar_config(disable=True)
    seen = []
    for network in (pipeline.transformer, second):
        network.register_forward_pre_hook(lambda module, *_: seen.append(module))
    given = {**arguments, "num_frames": 5, "guidance_scale_2": 2.0}
    result = _steer(pipeline, given)
    assert result.resampled.any(dim=0).all() and {id(m) for m in seen} == {id(pipeline.transformer), id(second)}
    own = _plain(pipeline, given)
    assert torch.equal(_steer(pipeline, given, reward_scale=0.0).samples.reshape(own.shape), own)
