"""Every configuration parses and builds its classes up to the weights; the debug twin of steering runs as it is."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI
from tiny import tiny_stable_diffusion
from tiny_clip import write_tiny_clip

import fklit.assets
from fklit.cli import main
from fklit.report.reading import read_run

CONFIGS = Path(__file__).parent.parent / "configs"
# What is laid over other files is built with them: test_eqprop_configs.py and test_fk_paper.py do.
OVERLAYS = ("baselines", "fk_paper")
ALL = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in OVERLAYS)
STEERING = sorted((CONFIGS / "steering").glob("*.yaml"))


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Stand-ins for the shipped models, so that this does not depend on their training."""
    folder = tmp_path_factory.mktemp("assets")
    tiny_stable_diffusion(folder / "emoji_scenes")
    (folder / "emoji_clip").mkdir()
    write_tiny_clip(folder / "emoji_clip")
    return folder


@pytest.fixture(autouse=True)
def _in_a_copy(assets, tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    shipped = fklit.assets.path
    monkeypatch.setattr(fklit.assets, "path", lambda name: assets / name if (assets / name).exists() else shipped(name))


def name_of(path):
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow) if "debug" in p.parts else p for p in ALL], ids=name_of
)
def test_parses_and_builds_its_classes(path, monkeypatch):
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, subcommand: None)
    trained = path.stem in ("score_model", "lj13_hot", "lj13_ladder")
    samples = ("steering" in str(path) or "correctors" in str(path)) and not trained
    for subcommand in ("predict", "test") if samples else ("fit",):
        # The machine of the test has no GPU; every other key is the file's own.
        cli = main([subcommand, "--config", str(path), "--trainer.accelerator", "cpu"])
        assert cli.model is not None and cli.datamodule is not None
        assert not hasattr(cli.model, "source") or not samples or not cli.model.source.is_loaded
    assert not Path("outputs").exists() and not Path("lightning_logs").exists()


@pytest.mark.parametrize("path", STEERING, ids=name_of)
def test_production_files_hide_no_default_and_explain_themselves(path):
    """Each key of the model and of the data is written down; the main file explains every one of them."""
    from inspect import signature

    from fklit.data import PromptDataModule
    from fklit.molecules import MoleculeSource
    from fklit.pipelines.source import PipelineSource
    from fklit.steering.task import SteeringTask
    from fklit.text import MaskedTextSource, TextPipelineSource

    text = path.read_text()
    optional = {
        "num_sweeps",
        "proposal",
        "search",
        "tempering",
        "prompts",
        "path",
        "column",
        "format",
        "pipeline_class",
        "revision",
        "variant",
    }
    named = (kind for kind in (MaskedTextSource, TextPipelineSource, MoleculeSource) if kind.__name__ in text)
    source = next(named, PipelineSource)
    for kind in (SteeringTask, source, PromptDataModule):
        for name in signature(kind).parameters:
            if name not in optional | {"trust_remote_code", "offload"}:
                assert re.search(rf"^\s+{name}:", text, re.M), f"{name} is missing"
    if path.stem == "emoji":
        names = "trainer|callbacks|model|source|data|init_args|class_path|title|stop|every|guidance_scale|num_inf"
        plain = re.compile(rf"^\s*(-\s*)?({names})")
        for line in text.splitlines():
            if ":" in line and not line.lstrip().startswith("#") and not plain.match(line):
                assert "#" in line, f"no comment: {line}"


@pytest.mark.slow
def test_the_debug_twin_runs_as_it_is(tmp_path):
    main(["predict", "--config", "configs/debug/steering.yaml", "--trainer.enable_progress_bar", "false"])
    found = read_run(tmp_path / "outputs" / "debug" / "steering")
    assert [record.prompt for record in found.records.values()] == ["a green heart", "a cat and a dog"]
    cli = main(["test", "--config", "configs/debug/steering.yaml", "--trainer.enable_progress_bar", "false"])
    assert float(cli.trainer.callback_metrics["test/denoiser_calls"]) == 6 * 2 * 2


@pytest.mark.slow
def test_the_debug_twin_of_text_runs_as_it_is(tmp_path, monkeypatch):
    monkeypatch.undo()  # the shipped models: there are no others of one vocabulary
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["predict", "--config", "configs/debug/text_steering.yaml", "--trainer.enable_progress_bar", "false"])
    found = read_run(tmp_path / "outputs" / "debug" / "text_steering")
    assert [record.prompt for record in found.records.values()] == ["the king said to", "in the morning"]
    assert all(-9 < reward < -1 for record in found.records.values() for reward in record.rewards)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "folder"), [("steering", "emoji"), ("correctors", "emoji_guidance")])
def test_the_production_file_runs_with_fewer_steps_and_writes_the_report(config, folder, tmp_path):
    main([
        *("predict", "--config", f"configs/{config}/emoji.yaml", "--data.init_args.limit", "2"),
        *("--model.init_args.pipeline_kwargs", json.dumps({"num_inference_steps": 10, "eta": 1.0})),
        *("--trainer.enable_progress_bar", "false"),
    ])  # fmt: skip
    out = tmp_path / "outputs" / folder
    assert (out / "report.html").stat().st_size > 10_000 and list(out.glob("events.out.tfevents.*"))
    assert json.loads((out / "00000" / "metadata.jsonl").read_text())["include"]
    assert {path.name for path in tmp_path.iterdir()} == {"configs", "outputs"}


def test_the_prompts_of_the_production_file_are_geneval_metadata_of_test_prompts():
    from fklit.emoji.prompts import test_prompts

    rows = [json.loads(line) for line in Path("configs/steering/emoji_prompts.jsonl").read_text().splitlines()]
    assert rows == [prompt.metadata() for prompt in test_prompts(12)]


def test_the_prompts_of_mdlm_are_fifteen_twenty_times():
    rows = Path("configs/steering/mdlm_prompts.txt").read_text().splitlines()
    assert len(rows) == 300 and len(set(rows)) == 15 and all(rows.count(row) == 20 for row in set(rows))
