"""Modular pipelines of diffusers: called, decoded, steered and corrected as their own calls give."""

import warnings

import pytest
import torch
from tiny_flow import SQUARE
from tiny_modular import MODULAR, flux_3, make, random_text

import fklit
from fklit.pipelines.call import call_parameters
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.interception import Interception, UnsupportedPipelineError
from fklit.pipelines.modular import ModularAdapter, as_pipeline
from fklit.pipelines.replay import PipelineReplay
from fklit.pipelines.stochasticity import SchedulerSwapWarning

STEPS = 4
PROMPTS = ["a cat", "a dog"]
QUICK = ("sd3",)
# Their attention rounds by the place of a row in the batch.
LOOSE = 2e-5


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODULAR]
)
def family(request):
    return request.param, *make(request.param)


class Hook:
    """Resamples by the given ancestors at one call."""

    def __init__(self, sources, at=None, ancestors=None):
        self.at, self.ancestors, self.sources = at, ancestors, sources

    def begin(self, num_steps, noisy):
        self.noise = noisy(range(num_steps))
        for source in self.sources:
            source.manual_seed(7)

    def step(self, call):
        return self.ancestors if call.index == self.at else None


def _sources(count=4):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def _own(pipeline, arguments, prompts, sources, **options):
    """The pipeline's own call."""
    name = next(output.name for output in pipeline.blocks.outputs if output.name in ("images", "videos"))
    given = {"num_inference_steps": STEPS, "output_type": "pt", **arguments, **options}
    return pipeline(prompt=list(prompts), generator=sources, output=name, **given)


def _adapted(adapter, arguments, prompts, sources):
    output = adapter(prompt=list(prompts), generator=sources, num_inference_steps=STEPS, output_type="pt", **arguments)
    return getattr(output, "images", getattr(output, "frames", None))


def _steer(pipeline, arguments, **options):
    given = {
        "num_particles": 3, "reward": lambda images: images.flatten(1).mean(1), "reward_scale": 200.0,
        "reward_schedule": fklit.Schedule(0, 3), "seed": 3,
        "pipeline_kwargs": {**arguments, "num_inference_steps": STEPS},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **{**given, **options})


def _group_sources(count=3):
    return [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(count)]


def _expected(pipeline, arguments, kernel=None, **options):
    sources = _group_sources()
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    if kernel is None:
        found = _own(pipeline, arguments, prompts, sources, **options)
    else:
        with stochastic_steps(pipeline.scheduler, kernel, sources):
            found = _own(pipeline, arguments, prompts, sources, **options)
    return found.reshape(2, 3, *found.shape[1:])


def test_the_adapter_calls_as_the_pipeline_and_leaves_it_alone(family):
    _, pipeline, arguments = family
    expected = _own(pipeline, arguments, ["a cat"] * 4, _sources())
    before, guider = dict(vars(pipeline)), repr(getattr(pipeline, "guider", None))
    adapter = as_pipeline(pipeline)
    assert type(adapter).__name__ == type(pipeline).__name__ and as_pipeline(adapter) is adapter
    assert torch.equal(_adapted(adapter, arguments, ["a cat"] * 4, _sources()), expected)
    _steer(pipeline, arguments)
    assert dict(vars(pipeline)) == before and repr(getattr(pipeline, "guider", None)) == guider
    assert "step" not in vars(pipeline.scheduler)


def test_samples_at_scale_0_and_of_one_particle_are_the_pipelines_own(family):
    _, pipeline, arguments = family
    expected = _expected(pipeline, arguments)
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples, expected)
    assert torch.equal(_steer(pipeline, arguments, potential="terminal").samples, expected)


def test_an_idle_run_is_the_plain_pipeline_under_the_same_sampler(family):
    """At a scale at which no weight parts; decoding on the way changes nothing."""
    name, pipeline, arguments = family
    result = _steer(pipeline, arguments, reward_scale=1e-12)
    assert not result.resampled.any()
    given = {"eta": 1.0} if name == "sdxl" else {"kernel": get_flow_kernel()}
    assert torch.equal(result.samples, _expected(pipeline, arguments, **given))


def test_steering_two_prompts_resamples(family):
    _, pipeline, arguments = family
    result = _steer(pipeline, arguments, ess_threshold=1.0, reward_scale=1e5)
    assert result.resampled.any(dim=0).all() and int(result.unique_roots.max()) < 3
    assert result.reward_path.isfinite().all() and result.previews.shape[1:3] == (2, 3)


def test_a_clone_continues_as_its_parent(family):
    """All slots draw the same noise from the first step on, so that each ends where its ancestor does."""
    name, pipeline, arguments = family
    adapter, ancestors = as_pipeline(pipeline), torch.tensor([2, 0, 2, 1])
    sampler = {"eta": 1.0} if name == "sdxl" else {"kernel": get_flow_kernel("sde")}
    results = []
    for at in (None, 1):
        sources = _sources()
        hook = Hook(sources, at, ancestors)
        with Interception(adapter, hook, generators=sources, group_size=4, **sampler):
            results.append(_adapted(adapter, arguments, ["a cat"] * 4, sources))
        assert hook.noise[0] and hook.noise[1]
    plain, moved = results
    assert not torch.allclose(plain[0], plain[1], atol=1e-4), "particles that start apart stay apart"
    assert float((moved - plain[ancestors]).abs().max()) < LOOSE


def test_the_last_samples_decode_to_what_the_pipeline_returns(family):
    """Encoders run once: what they gave is used again."""
    _, pipeline, arguments = family
    adapter, sources = as_pipeline(pipeline), _sources()
    given = {"prompt": ["a cat"] * 4, "num_inference_steps": STEPS, "generator": sources, **arguments}
    replay = PipelineReplay(adapter)
    replay.arguments = given
    with Interception(adapter, Hook([]), generators=sources) as run, replay.recording():
        images = _adapted(adapter, arguments, ["a cat"] * 4, sources)
        last, step = run.returned.clone(), pipeline.blocks.sub_blocks["text_encoder"]
        calls = []
        original = type(step).__call__
        type(step).__call__ = lambda *given: calls.append(1) or original(*given)
        found = replay.decode(last)
        type(step).__call__ = original
    assert torch.equal(found, images.float()) and not calls


def _correct(pipeline, arguments, **options):
    given = {"num_particles": 3, "guidance_scale": 3.0, "ess_threshold": 1.0, "seed": 3}
    given["pipeline_kwargs"] = {**arguments, "num_inference_steps": STEPS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.correct(pipeline, PROMPTS, **{**given, **options})


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_correct_sets_the_scale_of_the_guider(name):
    pipeline, arguments = make(name)
    result = _correct(pipeline, arguments)
    assert result.log_weight_std.isfinite().all() and float(result.log_weight_std.max()) > 0
    assert result.resampled.any() and pipeline.guider.guidance_scale != 3.0
    plain = _correct(pipeline, arguments, correction=0.0)
    pipeline.update_components(guider=pipeline.guider.new(guidance_scale=3.0))
    assert torch.equal(plain.samples, _expected(pipeline, arguments))


def test_another_formula_of_guidance_is_refused():
    pipeline, arguments = make("sd3")
    pipeline.update_components(guider=pipeline.guider.new(use_original_formulation=True))
    with pytest.raises(UnsupportedPipelineError, match="StableDiffusion3ModularPipeline is not unconditional"):
        _correct(pipeline, arguments)


def test_distilled_guidance_is_refused_by_correct():
    pipeline, arguments = make("flux")
    with pytest.raises(UnsupportedPipelineError, match="FluxModularPipeline has distilled guidance"):
        _correct(pipeline, arguments)


def test_a_scale_in_pipeline_kwargs_holds_for_the_call():
    pipeline, arguments = make("sd3")
    before = pipeline.guider.guidance_scale
    found = _steer(pipeline, {**arguments, "guidance_scale": 2.0}, reward_scale=0.0)
    assert pipeline.guider.guidance_scale == before
    assert not torch.equal(found.samples, _expected(pipeline, arguments))
    pipeline.update_components(guider=pipeline.guider.new(guidance_scale=2.0))
    assert torch.equal(found.samples, _expected(pipeline, arguments))


def test_refusals_name_the_pipeline_and_the_fix():
    from diffusers.modular_pipelines import ModularPipeline, SequentialPipelineBlocks

    pipeline, arguments = make("sd3")
    with pytest.raises(UnsupportedPipelineError, match=r"modular StableDiffusion3ModularPipeline.*ModularAdapter"):
        call_parameters(pipeline)
    with pytest.raises(TypeError, match=r"StableDiffusion3ModularPipeline, got 'widht'; did you mean 'width'"):
        _steer(pipeline, {"widht": 16})
    with pytest.raises(TypeError, match="blocks of StableDiffusion3ModularPipeline, got widht; omit"):
        ModularAdapter(pipeline)(prompt="a cat", widht=16)
    blocks = SequentialPipelineBlocks.from_blocks_dict({"text": random_text(prompt_embeds=(2, 3))})
    with pytest.raises(UnsupportedPipelineError, match=r"one of images, videos, audios, got Modular.* prompt_embeds"):
        _steer(ModularPipeline(blocks=blocks), arguments)


def test_a_pipeline_without_components_is_refused_by_what_it_lacks():
    from diffusers import FluxModularPipeline

    pipeline = FluxModularPipeline()
    with pytest.raises(UnsupportedPipelineError, match=r"Flux.* without transformer, vae, scheduler; call"):
        _steer(pipeline, {})


def test_a_flow_map_is_refused():
    """Each of its predictions leads to the next noise level, not along a velocity."""
    with torch.random.fork_rng(devices=[]):
        pipeline = flux_3("Flux3DistilledModularPipeline")
    with pytest.raises(UnsupportedPipelineError, match=r"Flux3DistilledModularPipeline cannot.*flow map.*terminal"):
        _steer(pipeline, SQUARE)
    best = _steer(pipeline, SQUARE, potential="terminal")
    assert torch.equal(best.samples, _expected(pipeline, SQUARE))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_one_prompt_is_repeated_by_the_blocks(name):
    pipeline, arguments = make(name)
    sources = fklit.feynman_kac.group_generators(3, [0]) * 3
    expected = _own(pipeline, arguments, ["a cat"] * 3, sources)
    given = {"num_particles": 3, "reward": lambda images: images.flatten(1).mean(1), "reward_scale": 0.0, "seed": 3}
    result = fklit.steer(pipeline, "a cat", **given, pipeline_kwargs={**arguments, "num_inference_steps": STEPS})
    assert torch.equal(result.samples[0], expected)


def _all_families():
    from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

    return [(name, find().removesuffix("ModularPipeline")) for name, find in MODULAR_PIPELINE_MAPPING.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), _all_families())
def test_every_family_is_made_and_refused_by_what_it_lacks(name, kind):
    """Without weights each has an adapter's inputs, and says what must be loaded, or that it steps by itself."""
    import diffusers

    pipeline = getattr(diffusers, f"{kind}ModularPipeline")()
    with pytest.raises(UnsupportedPipelineError, match=rf"{kind}ModularPipeline( without \w+|, of whose steps)"):
        _steer(pipeline, {})


def test_a_pipeline_without_scheduler_is_refused():
    """Echo computes its steps itself."""
    from diffusers import EchoModularPipeline

    with pytest.raises(UnsupportedPipelineError, match="a scheduler, got EchoModularPipeline, of whose steps"):
        _steer(EchoModularPipeline(), {})


def test_equal_texts_have_equal_encodings():
    from diffusers.modular_pipelines import PipelineState

    state = PipelineState()
    state.set("prompt", ["a", "b", "a"])
    _, state = random_text(prompt_embeds=(2, 3))(None, state)
    rows = state.get("prompt_embeds")
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
