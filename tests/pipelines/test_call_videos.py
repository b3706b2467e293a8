"""Calls with videos as inputs, and of pipelines that make one sample."""

import numpy as np
import pytest
import torch
from tiny_families import rows

import fklit
from fklit.pipelines.call import build_call
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.modality import modality_of

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
PROMPTS = ["a cat", "a dog"]


def _build(name, given, prompts=PROMPTS, particles=2):
    pipeline, arguments = rows()[name].make()
    sources = [torch.Generator() for _ in range(len(prompts) * particles)]
    return build_call(pipeline, prompts, particles, sources, {**arguments, **given})


@pytest.mark.parametrize("kind", ["list", "array", "tensor"])
def test_one_video_is_given_to_each_sample(kind):
    frames = np.random.default_rng(0).random((8, 16, 16, 3), dtype=np.float32)
    video = {"list": list(frames), "array": frames, "tensor": torch.from_numpy(frames).permute(0, 3, 1, 2)}[kind]
    given = _build("CogVideoXVideoToVideoPipeline", {"video": video})["video"]
    assert len(given) == 4 and all(len(one) == 8 for one in given)
    for one in given:
        assert all(np.array_equal(a, b) for a, b in zip(one, video, strict=True))


def test_a_video_for_each_prompt_goes_to_its_particles():
    first, second = [np.zeros((16, 16, 3))] * 8, [np.ones((16, 16, 3))] * 8
    given = _build("CogVideoXVideoToVideoPipeline", {"video": [first, second]})["video"]
    assert [one[0].max() for one in given] == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"\['video'\] expected 1 entry .* 2 \(one a prompt\).* got 3"):
        _build("CogVideoXVideoToVideoPipeline", {"video": [first, second, first]})


def test_pipelines_of_one_sample_are_refused_for_more():
    with pytest.raises(UnsupportedPipelineError, match=r"WanVACEPipeline makes one sample a call, got 4 to make"):
        _build("WanVACEPipeline", {})
    given = _build("WanVACEPipeline", {}, prompts=["a cat"], particles=1)
    assert given["prompt"] == "a cat"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("WanVideoToVideoPipeline", {}, "video"),
        ("CogVideoXFunControlPipeline", {}, "video"),
        ("WanPipeline", {"num_frames": 1}, "image"),
        ("StableAudio3Pipeline", {}, "audio"),
        ("AceStepPipeline", {}, "audio"),
        ("LTX2Pipeline", {}, "video"),
    ],
)
def test_what_a_pipeline_makes(name, given, expected):
    pipeline, _ = rows()[name].make()
    assert modality_of(pipeline, given) == expected


def _steer(name, **options):
    pipeline, arguments = rows()[name].make()
    return fklit.steer(
        pipeline, PROMPTS, num_particles=2, reward=lambda x: x.flatten(1).mean(1), reward_scale=1.0,
        pipeline_kwargs=arguments, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CosmosTextToWorldPipeline", "calls its scheduler twice a step"),
        ("HeliosPipeline", "makes a video part by part"),
        ("SkyReelsV2DiffusionForcingPipeline", "gives each frame its own noise level"),
        ("LTX2Pipeline", "steps the sound by a copy of its scheduler"),
    ],
)
def test_refusals_say_why(name, reason):
    with pytest.raises(UnsupportedPipelineError, match=rf"{name}.*{reason}"):
        _steer(name)
