"""The shipped configurations of flow-matching models name arguments that their pipelines take."""

import json
import sys
from pathlib import Path

import diffusers
import pytest
import yaml
from tiny_flow import make
from tiny_vlm import write_tiny_qwen

from fklit.cli import main
from fklit.pipelines.call import call_parameters

FOLDER = Path(__file__).parents[3] / "configs" / "steering"


@pytest.mark.parametrize("name", ["sd35", "flux", "qwen_image", "wan", "sd35_vqascore", "flux_vqascore"])
def test_arguments_are_those_of_the_class(name):
    given = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["model"]["init_args"]
    kind = getattr(diffusers, given["source"]["init_args"]["pipeline_class"])
    assert given["pipeline_kwargs"].keys() <= call_parameters(kind.__new__(kind)).keys()
    assert given["flow_kernel"] == "capped_dpmsolver++" and given["scheduler"] in ("auto", "stochastic")


def _smaller(content, folder, kind, small):
    """The configuration with a tiny model of the same class, few steps, and a small reward of the same class."""
    given = content["model"]["init_args"]
    given["source"]["init_args"] |= {
        "path": str(folder), "pipeline_class": f"tiny_loaded.{kind}", "dtype": "float32", "offload": False,
    }  # fmt: skip
    reward = given["reward"]["init_args"].get("reward", given["reward"])
    if reward["class_path"] == "VQAScore":
        reward["init_args"] |= {"model": str(write_tiny_qwen(folder.parent / "vlm")), "dtype": "float32"}
    else:
        shipped = {"CLIPScore": "fklit:emoji_clip", "ImageReward": "fklit:emoji_reward"}
        reward["init_args"] = {"model_name": shipped[reward["class_path"]]}
    given["pipeline_kwargs"] |= {"num_inference_steps": 10, **small}
    content["trainer"]["accelerator"] = "cpu"
    content["data"]["init_args"]["limit"] = 1
    return content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "small"),
    [
        ("sd35", "sd3", {"height": 16, "width": 16}),
        ("flux", "flux-dev", {"height": 16, "width": 16}),
        ("sd35_vqascore", "sd3", {"height": 16, "width": 16}),
        ("flux_vqascore", "flux-dev", {"height": 16, "width": 16}),
        ("qwen_image", "qwen-image", {"height": 16, "width": 16}),
        ("wan", "wan", {"height": 16, "width": 16, "num_frames": 9}),
    ],
)
@pytest.mark.filterwarnings("default")  # a tiny random model: its rewards hardly differ, previews are few
def test_the_configuration_runs_with_a_tiny_model(name, family, small, tmp_path, monkeypatch):
    pipeline, _ = make(family)
    pipeline.save_pretrained(tmp_path / "model")
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    smaller = _smaller(content, tmp_path / "model", type(pipeline).__name__, small)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(smaller))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["predict", "--config", "small.yaml", "--trainer.enable_progress_bar", "false"])
    out = tmp_path / "outputs" / name
    record = json.loads((out / "00000" / "record.json").read_text())
    assert len(record["rewards"]) == 4 and "capped_dpmsolver++" in record["sampler"] and record["scored_steps"]
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "00000" / "samples" / ("0003.mp4" if name == "wan" else "0003.png")).is_file()
