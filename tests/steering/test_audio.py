"""Audio: waveforms of shape (B, K, C, T), their sampling rate, and noise that a sampler reads from seeds."""

import warnings

import pytest
import torch
from tiny_audio import audio_ldm_2, stable_audio

import fklit
from fklit.pipelines.interception import Interception
from fklit.pipelines.replay import PipelineReplay
from fklit.pipelines.seeds import separate_generators
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.pipelines.waveforms import as_waveforms, sampling_rate_of
from fklit.steering.run import SteeringRun
from fklit.steering.settings import SteeringSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde, at the ends of the noise levels
    pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning"),
]
PROMPTS = ["a cat", "a dog"]
MODELS = {
    "stable_audio": (stable_audio, {"guidance_scale": 3.0}, (2, 31), 16),
    "audio_ldm_2": (audio_ldm_2, {"guidance_scale": 3.0, "audio_length_in_s": 0.02, "eta": 1.0}, (1, 320), 16000),
}


def loudness(waveforms, prompts=None):
    return waveforms.square().mean((1, 2))


@pytest.fixture(
    scope="module",
    params=[name if name == "stable_audio" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
def model(request):
    build, *rest = MODELS[request.param]
    return build(), *rest


def _settings(arguments, **options):
    given = {
        "num_particles": 3, "reward": loudness, "reward_scale": 1e5, "ess_threshold": 1.0, "seed": 3,
        "reward_schedule": fklit.Schedule(0, 3), "pipeline_kwargs": {**arguments, "num_inference_steps": 4},
    }  # fmt: skip
    return {**given, **options}


def _steer(pipeline, arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **_settings(arguments, **options))


def test_audio_is_steered(model):
    pipeline, arguments, shape, rate = model
    result = _steer(pipeline, arguments)
    assert result.samples.shape == (2, 3, *shape) and result.sampling_rate == rate and result.modality == "audio"
    assert result.resampled.any(dim=0).all() and int(result.unique_roots.max()) < 3
    expected = result.samples.square().mean((2, 3)).double()
    torch.testing.assert_close(result.rewards, expected, rtol=1e-5, atol=1e-8)
    assert result.best()[0].shape == shape and result.previews.shape[1:4] == (2, 3, 3)
    assert result.record(0)["sampling_rate"] == rate


def test_scale_0_and_an_idle_run_are_the_pipelines_own_bit_for_bit(model):
    pipeline, arguments, shape, _ = model
    run = SteeringRun(pipeline, PROMPTS, SteeringSettings(**_settings(arguments, reward_scale=0.0)))
    sources = [torch.Generator().manual_seed(source.initial_seed()) for source in run.generators]
    if len({id(source) for source in run.generators}) == 2:  # the particles of a prompt draw from one
        sources = [sources[0]] * 3 + [sources[3]] * 3
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    own = pipeline(prompt=prompts, generator=sources, num_inference_steps=4, output_type="pt", **arguments).audios
    own = as_waveforms(own, 6).reshape(2, 3, *shape)
    for options in ({"reward_scale": 0.0}, {"potential": "terminal"}, {"reward_scale": 1e-12}):
        assert torch.equal(_steer(pipeline, arguments, **options).samples, own), options


class Hook:
    """Resamples by the given ancestors at one call."""

    def __init__(self, at=None, ancestors=None):
        self.at, self.ancestors = at, ancestors

    def begin(self, num_steps, noisy):
        self.noise = noisy(range(num_steps))

    def step(self, call):
        return self.ancestors if call.index == self.at else None


def test_a_clone_continues_as_its_parent(model):
    """All slots have the same noise, but start apart."""
    pipeline, arguments, _, _ = model
    ancestors = torch.tensor([2, 0, 2, 1])
    found = []
    for hook in (Hook(), Hook(1, ancestors)):
        sources = [torch.Generator().manual_seed(7) for _ in range(4)]
        first = _first_latents(pipeline, arguments)
        with Interception(pipeline, hook, generators=sources, group_size=4):
            found.append(
                pipeline(
                    prompt=["a cat"] * 4, generator=sources, latents=first, num_inference_steps=4, output_type="pt",
                    **arguments,
                ).audios
            )  # fmt: skip
        assert (hook.noise[1] and not hook.noise[3]) or "eta" in arguments
    plain, moved = found
    assert not torch.allclose(plain[0], plain[1], atol=1e-4)
    torch.testing.assert_close(moved, plain[ancestors], rtol=0, atol=1e-6)


def _first_latents(pipeline, arguments):
    seen = []

    class Saw(Exception):
        pass

    class Look(Hook):
        def step(self, call):
            seen.append(call.sample.clone())
            raise Saw

    sources = [torch.Generator().manual_seed(i) for i in range(4)]
    with Interception(pipeline, Look(), generators=sources, group_size=4), pytest.raises(Saw):
        pipeline(prompt=["a cat"] * 4, generator=sources, num_inference_steps=4, **arguments)
    return seen[0] / pipeline.scheduler.init_noise_sigma


def test_the_last_samples_decode_to_what_the_pipeline_returns(model):
    pipeline, arguments, _, _ = model
    sources = [torch.Generator().manual_seed(i) for i in range(4)]
    given = {"prompt": ["a cat"] * 4, "generator": sources, "num_inference_steps": 4, "output_type": "pt", **arguments}
    replay = PipelineReplay(pipeline)
    replay.arguments = given
    with Interception(pipeline, Hook(), generators=sources) as run, replay.recording():
        own = pipeline(**given).audios
        found = replay.decode(run.returned.clone())
    assert torch.equal(as_waveforms(found, 4), as_waveforms(own, 4))


def test_a_sampler_that_reads_seeds_gets_one_for_each_particle():
    """With the generators of prompts alone, the particles of a prompt would share all their noise."""
    pipeline, arguments = stable_audio(), {"guidance_scale": 1.0}
    noise = []
    step = pipeline.scheduler.step

    def kept(model_output, timestep, sample, generator=None, **options):
        output = step(model_output, timestep, sample, generator=generator, **options)
        noise.append(pipeline.scheduler.noise_sampler(torch.tensor(80.0), torch.tensor(40.0)))
        return output

    pipeline.scheduler.step = kept
    _steer(pipeline, arguments, potential="terminal")
    rows = noise[0].flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 6
    pipeline.scheduler.__dict__.pop("step")

    alone = _steer(pipeline, arguments, reward_scale=1e-12)
    second = fklit.steer(pipeline, PROMPTS[1:], prompt_indices=[1], **_settings(arguments, reward_scale=1e-12))
    torch.testing.assert_close(second.samples[0], alone.samples[1], rtol=1e-4, atol=1e-5)


def test_seeds_follow_from_the_seed_and_the_place():
    shared, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    found = [source.initial_seed() for source in separate_generators([shared, shared, other, shared])]
    again = [source.initial_seed() for source in separate_generators([torch.Generator().manual_seed(1)] * 1)]
    assert len(set(found)) == 4 and found[0] == again[0] and max(found) < 2**31


def test_guidance_of_audio_is_corrected():
    result = fklit.correct(
        stable_audio(), PROMPTS, guidance_scale=2.0, num_particles=3, pipeline_kwargs={"num_inference_steps": 4}
    )
    assert result.samples.shape == (2, 3, 2, 31) and result.log_weight_std.isfinite().all()
    assert float(result.log_weight_std.max()) > 0


def test_rewards_of_pictures_are_refused_and_forms_are_checked(model):
    pipeline, arguments, _, rate = model
    with pytest.raises(ValueError, match=r"reward expected one of audio samples, .* which takes images; give another"):
        _steer(pipeline, arguments, reward=fklit.rewards.CLIPScore("fklit:emoji_clip"))
    assert as_waveforms(torch.zeros(2, 5), 2).shape == (2, 1, 5)
    assert as_waveforms(torch.zeros(2, 2, 5).numpy(), 2).shape == (2, 2, 5)
    with pytest.raises(ValueError, match=r"expected audio .* got a Tensor of shape \(2,\)"):
        as_waveforms(torch.zeros(2), 2)
    with pytest.raises(ValueError, match="expected 3 waveforms"):
        as_waveforms(torch.zeros(2, 5), 3)
    assert sampling_rate_of(pipeline) == rate
    with pytest.raises(ValueError, match="expected a vae or vocoder with a sampling_rate, got object"):
        sampling_rate_of(object())
