"""Flow-matching pipelines of diffusers with tiny random weights: seen, resampled, decoded and steered as they are."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from tiny_flow import make

import fklit
from fklit.pipelines.call_rows import shares_encoding
from fklit.pipelines.decode import decode_latents, decodes_directly
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.interception import Interception
from fklit.pipelines.replay import PipelineReplay, ReplayError
from fklit.pipelines.shared_encoding import shared_encodings
from fklit.pipelines.stochasticity import SchedulerSwapWarning

STEPS = 4
PROMPTS = ["a cat", "a dog"]
SCHEDULE = fklit.Schedule(0, 3)
# Their attention rounds by the place of a row in the batch.
LOOSE = {"wan"}


FAMILIES = ("sd3", "wan", "flux-dev", "z-image")
QUICK = FAMILIES[:2]


@pytest.fixture(
    scope="module",
    # The others are rows of the compatibility table, whose cells ask the same.
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def family(request):
    return request.param, *make(request.param)


class Hook:
    """Resamples by the given ancestors at one call, and keeps what it saw."""

    def __init__(self, at=None, ancestors=None):
        self.at, self.ancestors, self.calls = at, ancestors, []

    def begin(self, num_steps, noisy):
        self.noise = noisy(range(num_steps))

    def step(self, call):
        self.calls.append(call)
        return self.ancestors if call.index == self.at else None


def _call(pipeline, arguments, generators, **options):
    output = pipeline(
        prompt=["a cat"] * 4, num_inference_steps=STEPS, generator=generators,
        **{**arguments, "output_type": "pt", **_negatives(arguments, 4), **options},
    )  # fmt: skip
    return getattr(output, "images", getattr(output, "frames", None))


def _negatives(arguments, count):
    return {"negative_prompt": [arguments["negative_prompt"]] * count} if "negative_prompt" in arguments else {}


def _sources():
    return [torch.Generator().manual_seed(i) for i in range(4)]


def _steer(pipeline, arguments, **options):
    given = {
        "num_particles": 3, "reward": lambda images: images.flatten(1).mean(1), "reward_scale": 200.0,
        "reward_schedule": SCHEDULE, "pipeline_kwargs": {**arguments, "num_inference_steps": STEPS}, "seed": 3,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **{**given, **options})


def _plain(pipeline, arguments, kernel=None):
    sources = [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(3)]
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    settings = {**arguments, "num_inference_steps": STEPS, "output_type": "pt", **_negatives(arguments, 6)}
    shares = shares_encoding(pipeline, arguments)
    if shares:  # one picture would be encoded by the first prompt's noise
        settings["image"] = settings["image"].repeat(6, 1, 1, 1)
    with (
        shared_encodings(pipeline, 3) if shares else nullcontext(),
        stochastic_steps(pipeline.scheduler, kernel or get_flow_kernel(noise_level=0.0), sources),
    ):
        output = pipeline(prompt=prompts, generator=sources, **settings)
    images = getattr(output, "images", getattr(output, "frames", None))
    return images.reshape(2, 3, *images.shape[-3:])


def test_samples_at_scale_0_and_of_one_particle_are_the_pipelines_own(family):
    _, pipeline, arguments = family
    own = type(pipeline.scheduler)
    _plain(pipeline, arguments)
    before = set(vars(pipeline))
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples, _plain(pipeline, arguments))
    terminal = _steer(pipeline, arguments, potential="terminal")
    assert torch.equal(terminal.samples, _plain(pipeline, arguments))
    assert type(pipeline.scheduler) is own and set(vars(pipeline)) == before


def test_an_idle_run_under_a_kernel_is_the_plain_pipeline_under_it_bit_for_bit(family):
    """At a scale at which no weight parts, nothing is resampled; decoding on the way changes nothing."""
    _, pipeline, arguments = family
    result = _steer(pipeline, arguments, reward_scale=1e-12)
    assert not result.resampled.any() and "capped_dpmsolver++ at noise level 1" in result.settings["sampler"]
    expected = _plain(pipeline, arguments, get_flow_kernel())
    assert torch.equal(result.samples, expected)
    best_of_n = _steer(pipeline, arguments, potential="terminal", scheduler="stochastic")
    assert torch.equal(best_of_n.samples, expected) and best_of_n.sampler == result.sampler
    assert not torch.equal(result.samples, _plain(pipeline, arguments)), "the kernel draws noise"


def test_steering_two_prompts_resamples(family):
    _, pipeline, arguments = family
    prompts = list(PROMPTS)
    result = _steer(pipeline, arguments, ess_threshold=1.0, reward_scale=1e5)
    idle = _steer(pipeline, arguments, reward_scale=1e-12)
    assert result.resampled.any(dim=0).all() and result.samples.shape == idle.samples.shape
    assert int(result.unique_roots.max()) < 3 and not torch.equal(result.samples, idle.samples)
    assert result.reward_path.isfinite().all() and result.previews.shape[1:3] == (2, 3)
    assert prompts == PROMPTS and type(pipeline.scheduler).__mro__[0].__module__.startswith("diffusers")


def test_a_clone_continues_as_its_parent(family):
    """All slots draw the same noise from the first step on, so that each ends where its ancestor does."""
    name, pipeline, arguments = family
    ancestors = torch.tensor([2, 0, 2, 1])
    results = []
    for hook in (Hook(), Hook(1, ancestors)):
        sources = _sources()

        def begin(num_steps, noisy, hook=hook, sources=sources):
            Hook.begin(hook, num_steps, noisy)
            for source in sources:
                source.manual_seed(7)

        hook.begin = begin
        with Interception(pipeline, hook, generators=sources, kernel=get_flow_kernel("sde"), group_size=4):
            results.append(_call(pipeline, arguments, sources))
        steps = len(hook.noise)
        assert list(hook.noise.values()) == [True] * (steps - 1) + [False]
    plain, moved = results
    assert not torch.allclose(plain[0], plain[1], atol=1e-4), "particles that start apart stay apart"
    difference = float((moved - plain[ancestors]).abs().max())
    assert difference == 0 or (name in LOOSE and difference < 2e-5), difference


def test_the_last_samples_decode_to_what_the_pipeline_returns(family):
    """By its own call, and directly where fklit knows how."""
    _, pipeline, arguments = family
    sources = _sources()
    given = {"prompt": ["a cat"] * 4, "num_inference_steps": STEPS, **arguments, **_negatives(arguments, 4)}
    replay = PipelineReplay(pipeline)
    replay.arguments = given
    with Interception(pipeline, Hook(), generators=sources) as run, replay.recording():
        images = _call(pipeline, arguments, sources)
        last = run.returned.clone()
        found = replay.decode(last)
    assert torch.equal(found, images.float())
    assert pipeline.encode_prompt.__module__ == "tiny_flow"
    if decodes_directly(pipeline, last):
        torch.testing.assert_close(decode_latents(pipeline, last), images.float(), rtol=0, atol=1e-6)


def test_samples_without_the_arguments_of_a_call_are_refused_by_name():
    pipeline, _ = make("flux-dev")
    with pytest.raises(ReplayError, match=r"FluxPipeline steps samples of shape \(1, 4, 4\).*call_arguments.*decode="):
        PipelineReplay(pipeline).decode(torch.zeros(1, 4, 4))
