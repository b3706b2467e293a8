"""Corrected guidance of flow-matching pipelines with tiny random weights: which predictions they combine, and how."""

import warnings

import pytest
import torch
from tiny_flow import make

import fklit
from fklit.correctors.guidance.run import RescaledGuidanceWarning
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.guidance_predictions import guidance_predictions
from fklit.pipelines.interception import Interception, UnsupportedPipelineError
from fklit.pipelines.stochasticity import SchedulerSwapWarning

PROMPTS = ["a cat", "a dog"]
# What their call is given instead of guidance_scale, where it is another name, and w - s.
GUIDED = {
    "sd3": ("guidance_scale", 0.0), "flux-true-cfg": ("true_cfg_scale", 0.0), "chroma": ("guidance_scale", 0.0),
    "qwen-image": ("true_cfg_scale", 0.0), "aura-flow": ("guidance_scale", 0.0), "lumina2": ("guidance_scale", 0.0),
    "sana": ("guidance_scale", 0.0), "cogview4": ("guidance_scale", 0.0), "z-image": ("guidance_scale", 1.0),
    "wan": ("guidance_scale", 0.0), "ltx": ("guidance_scale", 0.0),
}  # fmt: skip
QUICK = ("sd3", "qwen-image")


def _make(name, scale_name="guidance_scale"):
    pipeline, arguments = make(name)
    return pipeline, {key: value for key, value in arguments.items() if key != scale_name}


def _correct(pipeline, arguments, **options):
    given = {
        "guidance_scale": 3.0, "num_particles": 3, "ess_threshold": 1.0, "seed": 3,
        "pipeline_kwargs": {**arguments, "num_inference_steps": 4},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        warnings.simplefilter("ignore", RescaledGuidanceWarning)
        return fklit.correct(pipeline, PROMPTS, **{**given, **options})


@pytest.fixture(params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in GUIDED])
def family(request):
    scale_name, offset = GUIDED[request.param]
    return request.param, *_make(request.param, scale_name), scale_name, offset


def test_weights_and_resamples(family):
    name, pipeline, arguments, _, _ = family
    result = _correct(pipeline, arguments)
    assert result.samples.isfinite().all() and result.log_weight_std.isfinite().all()
    # At pure noise the predictions say nothing of it: the first weights are equal.
    assert float(result.log_weight_std[0].max()) < 1e-9 and float(result.log_weight_std[1:].min()) > 0
    if name != "aura-flow":  # whose random weights make predictions that differ in the last bits only
        assert result.resampled.any()


def test_without_correction_it_is_the_pipelines_own_call_bit_for_bit(family):
    _, pipeline, arguments, scale_name, offset = family
    result = _correct(pipeline, arguments, correction=0.0)
    sources = [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(3)]
    repeated = {key: [value] * 6 for key, value in arguments.items() if key == "negative_prompt"}
    output = pipeline(
        prompt=[prompt for prompt in PROMPTS for _ in range(3)], generator=sources, num_inference_steps=4,
        output_type="pt", **{**arguments, scale_name: 3.0 - offset, **repeated},
    )  # fmt: skip
    own = getattr(output, "images", getattr(output, "frames", None))
    assert torch.equal(result.samples, own.reshape(result.samples.shape))


def test_both_predictions_are_told_apart(family):
    """The unconditional prediction of all prompts is one; the conditional ones differ between prompts."""
    name, pipeline, arguments, scale_name, offset = family
    seen = []

    class Look:
        def begin(self, num_steps, noisy):
            pass

        def step(self, call):
            seen.append((guidance_predictions(call, 3.0), call.model_output))

    sources = [torch.Generator().manual_seed(7) for _ in range(2)]  # equal samples
    repeated = {key: [value] * 2 for key, value in arguments.items() if key == "negative_prompt"}
    with Interception(pipeline, Look(), generators=sources, kernel=get_flow_kernel()):
        given = {**arguments, scale_name: 3.0 - offset, **repeated}
        pipeline(prompt=PROMPTS, generator=sources, num_inference_steps=4, **given)
    found, output = seen[0]
    assert found.rescaled == (name in ("qwen-image", "lumina2"))
    torch.testing.assert_close(found.unconditional[0], found.unconditional[1], rtol=1e-4, atol=1e-5)
    if name != "aura-flow":
        assert not torch.allclose(found.conditional[0], found.conditional[1], rtol=1e-4, atol=1e-5)
    combined = found.unconditional + 3.0 * (found.conditional - found.unconditional)
    if found.rescaled:
        combined = combined * found.conditional.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(combined.to(output.dtype), output, rtol=1e-4, atol=1e-5)


def test_a_rescaled_combination_is_said_and_replaced():
    pipeline, arguments = _make("qwen-image", "true_cfg_scale")
    with (
        warnings.catch_warnings(),
        pytest.warns(RescaledGuidanceWarning, match="QwenImagePipeline brings .* correction=0"),
    ):
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        fklit.correct(
            pipeline, PROMPTS, guidance_scale=3.0, num_particles=2,
            pipeline_kwargs={**arguments, "num_inference_steps": 4},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("flux-dev", ValueError, r"FluxPipeline expected a negative prompt, .* negative_prompt=' '"),
        ("flux2", UnsupportedPipelineError, "Flux2Pipeline has distilled guidance"),
    ],
)
def test_distilled_guidance_is_refused(name, error, message):
    pipeline, arguments = _make(name)
    with pytest.raises(error, match=message):
        _correct(pipeline, arguments)


def test_a_scale_at_which_z_image_does_not_guide_is_refused():
    with pytest.raises(ValueError, match=r"guidance_scale above 2 .* got 1.5; raise it"):
        _correct(*_make("z-image"), guidance_scale=1.5)


def test_a_reward_is_decoded_by_the_pipeline_itself():
    pipeline, arguments = _make("flux-true-cfg", "true_cfg_scale")
    result = _correct(
        pipeline, arguments, reward=lambda images: images.flatten(1).mean(1), reward_scale=100.0,
        reward_schedule=fklit.Schedule(0, 3),
    )  # fmt: skip
    assert result.rewards.shape == (2, 3) and result.reward_path.shape == (4, 2, 3)


def test_videos_are_corrected():
    pipeline, arguments = _make("wan")
    result = _correct(pipeline, {**arguments, "num_frames": 5})
    assert result.samples.shape[:3] == (2, 3, 5) and result.modality == "video"
