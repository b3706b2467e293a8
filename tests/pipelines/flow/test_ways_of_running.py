"""Compiled, offloaded, quantized, adapted and cached flow-matching transformers: the same law, or a refusal by name."""

import importlib.util
import warnings

import pytest
import torch
from tiny_flow import make

import fklit
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.stochasticity import SchedulerSwapWarning

PROMPTS = ["a cat", "a dog"]
FAMILIES = ["flux-dev", "wan"]


def brightness(images, prompts=None):
    return images.flatten(1).mean(1)


def _steer(pipeline, arguments, **options):
    given = {
        "num_particles": 3, "reward": brightness, "reward_scale": 1e5, "ess_threshold": 1.0, "seed": 3,
        "reward_schedule": fklit.Schedule(0, 3), "pipeline_kwargs": {**arguments, "num_inference_steps": 4},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SchedulerSwapWarning)
        return fklit.steer(pipeline, PROMPTS, **{**given, **options})


def _plain(pipeline, arguments):
    """The pipeline's own samples, with fklit's generators."""
    sources = [source for source in fklit.feynman_kac.group_generators(3, [0, 1]) for _ in range(3)]
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    output = pipeline(prompt=prompts, generator=sources, num_inference_steps=4, output_type="pt", **arguments)
    images = getattr(output, "images", getattr(output, "frames", None))
    return images.reshape(2, 3, *images.shape[-3:])


def _whole(pipeline):
    pipeline.transformer = torch.compile(pipeline.transformer, backend="eager")


def _in_place(pipeline):
    pipeline.transformer.compile(backend="eager")


def _regional(pipeline):
    pipeline.transformer.compile_repeated_blocks(backend="eager")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", [_whole, _in_place, _regional], ids=["torch.compile", "compile", "regional"])
def test_compiled_transformers(how, family):
    plain = _steer(*make(family))
    pipeline, arguments = make(family)
    how(pipeline)
    result = _steer(pipeline, arguments)
    assert result.resampled.any(dim=0).all()
    torch.testing.assert_close(result.samples, plain.samples, rtol=1e-4, atol=1e-4)
    assert torch.equal(result.ancestors, plain.ancestors)
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples, _plain(pipeline, arguments))


def _offload(pipeline):
    from accelerate import cpu_offload_with_hook

    hook = None
    for name in ("transformer", "vae"):  # what enable_model_cpu_offload does where there is an accelerator
        _, hook = cpu_offload_with_hook(getattr(pipeline, name), "cpu", prev_module_hook=hook)


def _offload_layers(pipeline):
    from accelerate import cpu_offload

    for name in ("transformer", "vae"):  # what enable_sequential_cpu_offload does
        cpu_offload(getattr(pipeline, name), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", [_offload, _offload_layers], ids=["models", "layers"])
def test_offloaded_transformers(how, family):
    plain = _steer(*make(family))
    pipeline, arguments = make(family)
    how(pipeline)
    result = _steer(pipeline, arguments)
    assert torch.equal(result.samples, plain.samples) and torch.equal(result.ancestors, plain.ancestors)


def _torchao(pipeline):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(pipeline.transformer, Int8WeightOnlyConfig())


def _lora(pipeline):
    from peft import LoraConfig

    # A linear layer of every attention, with weights that change the samples.
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    for name, parameter in pipeline.transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("package", "how"), [("torchao", _torchao), ("peft", _lora)])
def test_quantized_and_adapted_transformers(package, how, family):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    pipeline, arguments = make(family)
    before = _plain(pipeline, arguments)
    torch.manual_seed(0)
    how(pipeline)
    own = _plain(pipeline, arguments)
    assert not torch.equal(own, before), "it changes the model"
    assert torch.equal(_steer(pipeline, arguments, reward_scale=0.0).samples, own)
    result = _steer(pipeline, arguments)
    assert result.resampled.any(dim=0).all() and result.samples.isfinite().all()


def _caches():
    import diffusers

    yield "FirstBlockCache", diffusers.FirstBlockCacheConfig(threshold=0.2)
    yield "TaylorSeerCache", diffusers.TaylorSeerCacheConfig()
    yield (
        "PyramidAttentionBroadcast",
        diffusers.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
        ),
    )


@pytest.mark.parametrize("config", [config for _, config in _caches()], ids=[name for name, _ in _caches()])
def test_caches_are_refused_where_particles_move_or_chunks_share_them(config):
    pipeline, arguments = make("flux-dev")
    pipeline.transformer.enable_cache(config)
    message = r"caches what it computed for each row .* disable_cache\(\)"
    for options in ({}, {"potential": "terminal", "max_batch": 3}):
        with pytest.raises(UnsupportedPipelineError, match=message):
            _steer(pipeline, arguments, **options)
    pipeline.transformer.disable_cache()
    assert _steer(pipeline, arguments).resampled.any()


def test_a_cache_is_the_pipelines_own_in_best_of_n():
    from diffusers import FirstBlockCacheConfig

    pipeline, arguments = make("flux-dev")
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    own = _plain(pipeline, arguments)
    assert torch.equal(_steer(pipeline, arguments, potential="terminal").samples, own)
