"""PipelineSource: where a pipeline is found, what it is loaded as, and what it says when it cannot be."""

import shutil

import pytest
import torch
from tiny import tiny_ddpm, tiny_stable_diffusion

from fklit.fingerprint import fingerprint
from fklit.pipelines.source import PipelineSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return path


def test_loads_lazily_once_frozen_and_without_touching_the_random_state(folder):
    source = PipelineSource(str(folder))
    assert not source.is_loaded
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.inference_mode():
        pipeline = source.pipeline
    assert torch.equal(torch.get_rng_state(), before)
    assert type(pipeline).__name__ == "StableDiffusionPipeline" and source.load() is source
    assert source.pipeline is pipeline and source.is_loaded
    parameters = list(source.parameters())
    assert {pipeline.unet, pipeline.vae, pipeline.text_encoder} == set(source.children())
    assert parameters and not any(p.requires_grad or p.is_inference() for p in parameters)
    assert not source.train().training and not pipeline.unet.training


def test_weights_follow_to_but_are_in_no_state_dict(folder):
    outer = torch.nn.Module()
    outer.source, outer.head = PipelineSource(str(folder)), torch.nn.Linear(2, 2)
    outer.source.load()
    outer.to(torch.float64)
    assert outer.source.pipeline.vae.dtype == torch.float64
    assert set(outer.state_dict()) == {"head.weight", "head.bias"}
    outer.load_state_dict(outer.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.bias"):
        outer.load_state_dict({"head.weight": torch.zeros(2, 2)}, strict=True)


def test_offload_leaves_the_networks_to_accelerate_and_changes_no_image(folder):
    def image(source):
        generator = torch.Generator().manual_seed(0)
        return source.pipeline("a cat", num_inference_steps=2, generator=generator, output_type="pt").images

    source = PipelineSource(str(folder), offload=True)
    source.enable_offload("cpu")
    source.enable_offload("cpu")
    assert hasattr(source.pipeline.unet, "_hf_hook") and not list(source.children())
    assert torch.equal(image(source), image(PipelineSource(str(folder))))
    plain = PipelineSource(str(folder))
    plain.enable_offload("cpu")
    assert not plain.is_loaded


def test_dtype_and_class(folder):
    source = PipelineSource(str(folder), dtype="bfloat16", pipeline_class="StableDiffusionImg2ImgPipeline")
    assert type(source.pipeline).__name__ == "StableDiffusionImg2ImgPipeline"
    assert source.pipeline.unet.dtype == torch.bfloat16
    dotted = PipelineSource(str(folder), pipeline_class="diffusers.StableDiffusionInpaintPipeline")
    assert type(dotted.pipeline).__name__ == "StableDiffusionInpaintPipeline"


def test_another_kind_of_pipeline_and_a_relative_path(tmp_path, monkeypatch):
    tiny_ddpm(tmp_path / "here" / "ddpm")
    monkeypatch.chdir(tmp_path)
    assert type(PipelineSource("here/ddpm").pipeline).__name__ == "DDPMPipeline"


def test_a_half_precision_model_is_cast(folder, tmp_path):
    tiny_stable_diffusion().to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    assert PipelineSource(str(tmp_path / "half")).pipeline.text_encoder.dtype == torch.float32


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "hub id 'owner/name', got 'nowhere', and there is no folder"),
        ("./owner/name", "there is no folder"),
        ("/a/b", "there is no folder"),
        ("a/b/c", "there is no folder"),
        ("fklit:emoji_scene", "fklit ships"),
        ("fklit:nothing", "fklit ships"),
    ],
)
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        PipelineSource(path).load()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(ValueError, match=r"has no model_index\.json, .* `pipeline\.save_pretrained` wrote"):
        PipelineSource(str(tmp_path)).load()


def test_a_hub_id_without_a_connection():
    with pytest.raises(OSError, match=r"'nobody/nothing', which could not be had .* `hf download nobody/nothing`"):
        PipelineSource("nobody/nothing").load()


def test_bad_arguments(folder):
    with pytest.raises(ValueError, match=r"dtype expected one of .* got 'fp16'"):
        PipelineSource(str(folder), dtype="fp16")
    for name in ("StableDifusionPipeline", "no_such_package.Pipeline"):
        with pytest.raises(ValueError, match=f"got '{name}', which cannot be imported"):
            PipelineSource(str(folder), pipeline_class=name).load()
    with pytest.raises(ValueError, match="has no from_pretrained"):
        PipelineSource(str(folder), pipeline_class="collections.OrderedDict").load()


def test_settings_are_of_the_content_not_of_the_place(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert PipelineSource(str(moved)).settings() == PipelineSource(str(folder)).settings()
    (moved / "README.md").write_text("a model card")
    assert PipelineSource(str(moved)).settings() == PipelineSource(str(folder)).settings()
    (moved / "scheduler" / "scheduler_config.json").write_text("{}")
    assert PipelineSource(str(moved)).settings() != PipelineSource(str(folder)).settings()
    pinned, newest = PipelineSource("a/b", revision="abc").settings(), PipelineSource("a/b").settings()
    assert pinned["hub"] == "a/b" and pinned != newest


def test_fingerprints_see_names_content_and_large_files(tmp_path, monkeypatch):
    import fklit.fingerprint as module

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"1")
    first = fingerprint(tmp_path / "a")
    (tmp_path / "a" / ".cache").write_bytes(b"hidden files do not count")
    assert fingerprint(tmp_path / "a") == first
    (tmp_path / "a" / "x.bin").rename(tmp_path / "a" / "y.bin")
    assert fingerprint(tmp_path / "a") != first
    monkeypatch.setattr(module, "_WHOLE", 2**20)
    large = tmp_path / "large.bin"
    content = bytearray(8 * 2**20)
    large.write_bytes(content)
    before = fingerprint(large)
    content[-1] = 1
    large.write_bytes(content)
    assert fingerprint(large) != before
    with pytest.raises(FileNotFoundError, match="does not exist"):
        fingerprint(tmp_path / "b")
