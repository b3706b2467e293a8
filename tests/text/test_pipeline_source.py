"""Text pipelines of diffusers by folder: a model with code of its own, one of transformers, and a task around them."""

import json

import pytest
import torch
from tiny_text_pipelines import tiny_diffusion_gemma, word_tokenizer

import fklit
from fklit.steering.task import SteeringTask
from fklit.text import TextPipelineSource

CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TinyConfig(PretrainedConfig):
    model_type = "tiny_llada"

    def __init__(self, vocab_size=14, **given):
        self.vocab_size = vocab_size
        super().__init__(**given)


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, 8)
        self.head = torch.nn.Linear(8, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        seen = self.words(input_ids) * attention_mask[..., None]
        return CausalLMOutput(logits=self.head(seen + seen.mean(1, keepdim=True) + position_ids[..., None] / 9))
"""
CALL = {"gen_length": 6, "num_inference_steps": 2}


def length(texts):
    return [float(len(text)) for text in texts]


@pytest.fixture(scope="module")
def llada(tmp_path_factory):
    """As LLaDA2 is published: weights with the code of their network."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny_llada")
    (folder / "tiny_llada.py").write_text(CODE)
    named = {"AutoConfig": "tiny_llada.TinyConfig", "AutoModelForCausalLM": "tiny_llada.TinyModel"}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "tiny_llada", "architectures": ["TinyModel"], "vocab_size": 14, "auto_map": named})
    )
    draws = torch.Generator().manual_seed(0)
    shapes = {"words.weight": (14, 8), "head.weight": (14, 8), "head.bias": (14,)}
    tensors = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_gemma")
    pipeline = tiny_diffusion_gemma()
    pipeline.model.save_pretrained(folder)
    pipeline.processor.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _modules_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))


def test_a_model_with_code_of_its_own_runs_if_it_is_trusted(llada):
    source = TextPipelineSource(
        str(llada), pipeline="llada2", scheduler_config={"block_length": 4}, trust_remote_code=True
    )
    assert not source.is_loaded and source.modality == "text"
    found = fklit.steer(
        source.pipeline,
        "the cat",
        reward=length,
        reward_scale=0.1,
        num_particles=3,
        pipeline_kwargs={**CALL, "temperature": 1.0},
    )
    assert found.samples.shape == (1, 3, 6) and source.is_loaded
    assert next(source.parameters()).requires_grad is False
    with pytest.raises(ValueError, match=r"expected a model without code of its own, got .*; read it, and set"):
        TextPipelineSource(str(llada), pipeline="llada2").load()


def test_a_task_steers_diffusion_gemma(gemma):
    source = TextPipelineSource(str(gemma), pipeline="diffusion_gemma", scheduler="EntropyBoundScheduler")
    task = SteeringTask(source, reward=length, num_particles=3, pipeline_kwargs=CALL, reward_scale=0.1)
    assert task.modality == "text"
    result = task.sample(["the cat", "dog"], [3, 4])
    assert result.samples.shape == (2, 3, 8) and result.settings["sampler"] == "EntropyBoundScheduler"
    assert len(result.items[0]) == 3 and all(isinstance(text, str) for text in result.items[0])
    known = task.settings()["source"]
    assert known["pipeline"] == "diffusion_gemma" and str(gemma) not in json.dumps(known)


def test_a_source_of_ones_own_may_make_the_pipeline():
    from fklit import PipelineSource

    class Own(PipelineSource):
        def build(self):
            return tiny_diffusion_gemma()

    task = SteeringTask(Own("own"), reward=length, reward_scale=0.1, num_particles=2, pipeline_kwargs=CALL)
    assert task.modality is None and task.source.load() and task.modality == "text"
    assert task.sample(["the cat"], [0]).samples.shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pipeline": "amused"}, "expected pipeline as one of llada2, diffusion_gemma, got 'amused'"),
        ({"dtype": "int8"}, "expected dtype as one of float32, float16, bfloat16, got 'int8'"),
        ({"scheduler": "EntropyBoundScheduler"}, "one of BlockRefinementScheduler for llada2, got 'EntropyBoundSch"),
    ],
)
def test_odd_arguments_give_one_line(given, message):
    with pytest.raises(ValueError, match=message):
        TextPipelineSource("folder", **{"pipeline": "llada2", **given})


def test_odd_files_give_one_line(llada, tmp_path):
    given = {"pipeline": "llada2", "scheduler_config": {"blocks": 4}, "trust_remote_code": True}
    with pytest.raises(ValueError, match=r"expected scheduler_config among block_length, .* got blocks; omit it"):
        TextPipelineSource(str(llada), **given).load()
    with pytest.raises((OSError, ValueError), match="expected a folder or hub id of a model, got ") as caught:
        TextPipelineSource(str(tmp_path), pipeline="diffusion_gemma").load()
    assert "\n" not in str(caught.value)
