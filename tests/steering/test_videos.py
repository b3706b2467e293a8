"""Videos of several frames: the shape of what is steered, what scores them, and how they are decoded on the way."""

import inspect
import warnings

import pytest
import torch
from tiny_flow import make
from tiny_pipelines import tiny_animatediff

import fklit
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.rewards import Frames

PROMPTS = ["a cat", "a dog"]


def brightness(images, prompts=None):
    return images.flatten(1).mean(1)


def animatediff():
    return tiny_animatediff(), {"height": 16, "width": 16, "num_frames": 4, "eta": 1.0}


def flow(name, frames):
    pipeline, arguments = make(name)
    return pipeline, {**arguments, "num_frames": frames}


MODELS = {
    "wan": (lambda: flow("wan", 5), 5),
    "ltx": (lambda: flow("ltx", 9), 9),
    "animatediff": (animatediff, 4),
}


@pytest.fixture(
    scope="module", params=[name if name == "wan" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def model(request):
    build, frames = MODELS[request.param]
    return *build(), frames


def _steer(pipeline, arguments, **options):
    given = {
        "num_particles": 3, "reward": Frames(brightness, every=2), "reward_scale": 1e5, "ess_threshold": 1.0, "seed": 3,
        "reward_schedule": fklit.Schedule(0, 3), "pipeline_kwargs": {**arguments, "num_inference_steps": 4},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **{**given, **options})


def _plain(pipeline, arguments, kernel):
    sources = [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(3)]
    settings = {**arguments, "num_inference_steps": 4, "output_type": "pt"}
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    if "eta" in arguments:
        return pipeline(prompt=prompts, generator=sources, **settings).frames
    with stochastic_steps(pipeline.scheduler, kernel, sources):
        return pipeline(prompt=prompts, generator=sources, **settings).frames


def test_videos_are_steered_as_a_whole(model):
    pipeline, arguments, frames = model
    result = _steer(pipeline, arguments)
    assert result.samples.shape[:4] == (2, 3, frames, 3) and result.modality == "video"
    assert result.resampled.any(dim=0).all() and int(result.unique_roots.max()) < 3
    expected = brightness(result.samples[:, :, ::2].flatten(2, 4)[..., None].flatten(0, 1)).reshape(2, 3)
    torch.testing.assert_close(result.rewards, expected.double(), rtol=1e-5, atol=1e-6)
    assert result.previews.shape[1:4] == (2, 3, 3)
    best = result.best()
    assert [len(video) for video in best] == [frames, frames] and best[0][0].mode == "RGB"
    assert result.record(0)["modality"] == "video"
    with pytest.raises(ValueError, match=r"expected images, got samples that are video; read result\.items"):
        _ = result.images


def test_scale_0_and_an_idle_run_are_the_pipelines_own_bit_for_bit(model):
    pipeline, arguments, _ = model
    own = _plain(pipeline, arguments, get_flow_kernel(noise_level=0.0)).reshape(2, 3, *_shape(pipeline, arguments))
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples, own)
    assert torch.equal(_steer(pipeline, arguments, potential="terminal").samples, own)
    idle = _steer(pipeline, arguments, reward_scale=1e-12)
    kernel = _plain(pipeline, arguments, get_flow_kernel()).reshape(idle.samples.shape)
    assert torch.equal(idle.samples, kernel)


def _shape(pipeline, arguments):
    return _steer(pipeline, arguments, reward_scale=0.0).samples.shape[2:]


def test_a_whole_video_is_given_to_a_function(model):
    pipeline, arguments, frames = model
    shapes = []

    def motion(videos, prompts):
        shapes.append(videos.shape)
        return videos.diff(dim=1).abs().flatten(1).mean(1)

    _steer(pipeline, arguments, reward=motion)
    assert {shape[1:3] for shape in shapes} == {(frames, 3)}


@pytest.mark.slow
def test_videos_are_decoded_one_at_a_time_on_the_way(monkeypatch):
    pipeline, arguments = flow("wan", 5)
    sizes = []
    decode = pipeline.vae.decode

    def counted(z, *args, **kwargs):
        sizes.append(z.shape[0])
        return decode(z, *args, **kwargs)

    monkeypatch.setattr(pipeline.vae, "decode", counted)
    whole = _steer(pipeline, arguments)
    assert sizes == [1] * 24 + [6], "four scored steps of six particles, then the pipeline's own call"
    sizes.clear()
    single = _steer(pipeline, arguments, decode_batch=1)
    assert set(sizes) == {1} and single.settings["decode_batch"] == 1
    sizes.clear()
    _steer(pipeline, arguments, decode_batch=4)
    assert set(sizes) == {4}
    torch.testing.assert_close(single.samples, whole.samples, rtol=0, atol=1e-5)


def test_a_reward_of_pictures_is_refused_before_the_first_step():
    pipeline, arguments = flow("wan", 5)
    called = []
    pipeline.transformer.register_forward_pre_hook(lambda *_: called.append(1))
    clip = fklit.rewards.CLIPScore("fklit:emoji_clip")
    for options in ({}, {"potential": "terminal"}, {"reward_scale": 0.0}):
        with pytest.raises(ValueError, match=r"WanPipeline makes them, got CLIPScore, .* rewards.Frames\(CLIPScore"):
            _steer(pipeline, arguments, reward=clip, **options)
    assert not called
    assert _steer(pipeline, {**arguments, "num_frames": 1}, reward=brightness).modality == "image"


def test_videos_of_the_wrong_form_are_refused():
    from fklit.pipelines.videos import as_unit_videos

    frames = torch.rand(2, 4, 3, 8, 8)
    as_pil = _steer(*flow("wan", 5), reward_scale=0.0).items[0]
    assert as_unit_videos(as_pil, 3).shape == (3, 5, 3, 16, 16)
    array = frames.permute(0, 1, 3, 4, 2).numpy()
    assert torch.equal(as_unit_videos(array, 2), frames)
    for wrong, message in (
        (frames[:, 0], r"expected videos as a float tensor .* got a Tensor of shape \(2, 3, 8, 8\)"),
        (frames[:1], "expected 2 videos"),
        ([], "got a list"),
    ):
        with pytest.raises(ValueError, match=message):
            as_unit_videos(wrong, 2)


def test_the_arguments_are_those_of_the_pipelines():
    """What tells videos from pictures is a name in a signature."""
    for build, _ in MODELS.values():
        assert "num_frames" in inspect.signature(type(build()[0]).__call__).parameters
