"""GuidanceTask and SimulationTask with a real Trainer, and their configurations as they are."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from tiny import tiny_stable_diffusion

import fklit.assets
from fklit.analytic import GaussianMixture
from fklit.callbacks import SampleWriter
from fklit.cli import main
from fklit.correctors import Target, VariancePreserving, correct, simulate
from fklit.correctors.guidance.task import GuidanceTask
from fklit.correctors.simulation.task import SimulationTask
from fklit.data import PromptDataModule, SimulationDataModule
from fklit.feynman_kac import group_generators
from fklit.pipelines.source import PipelineSource

PROMPTS = ["a green heart", "two cats"]
SETTINGS = {
    "guidance_scale": 3.0,
    "num_particles": 2,
    "ess_threshold": 1.0,
    "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0},
    "scheduler": "keep",
}
CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("assets")
    tiny_stable_diffusion(path / "emoji_scenes")
    return path


def _trainer(tmp_path, **arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet, **arguments)


def test_predict_equals_correct_whatever_the_batch(folder, tmp_path):
    source = PipelineSource(str(folder / "emoji_scenes"))
    writer = SampleWriter(str(tmp_path / "out"))
    data = PromptDataModule(prompts=PROMPTS, batch_size=1)
    results = _trainer(tmp_path, callbacks=[writer]).predict(GuidanceTask(source, **SETTINGS), data)
    direct = correct(source.pipeline, PROMPTS, max_batch=8, **SETTINGS)
    for b, result in enumerate(results):
        assert torch.equal(result.samples[0], direct.samples[b])
        assert torch.equal(result.log_weights[0], direct.log_weights[b])
    record = json.loads((tmp_path / "out" / "00001" / "record.json").read_text())
    assert record["log_weight_std"] == direct.log_weight_std[:, 1].tolist() and record["prompt"] == PROMPTS[1]
    assert (tmp_path / "out" / "00001" / "samples" / "0001.png").is_file()
    again = _trainer(tmp_path, callbacks=[SampleWriter(str(tmp_path / "out"))])
    assert again.predict(GuidanceTask(source, **SETTINGS), data) == [(), ()], "what is on disk is not sampled again"


def test_tests_log_figures(folder, tmp_path):
    trainer = _trainer(tmp_path)
    source = PipelineSource(str(folder / "emoji_scenes"))
    trainer.test(GuidanceTask(source, **SETTINGS), PromptDataModule(prompts=PROMPTS), verbose=False)
    logged = trainer.callback_metrics
    assert float(logged["test/denoiser_calls"]) == 4 * 2 * 2 and float(logged["test/log_weight_std"]) > 0


def test_settings_are_checked_before_anything_is_loaded(tmp_path):
    source = PipelineSource("no/such")
    for changes, sentence in (
        ({"correction": 1.5}, r"correction=1\.5"),
        ({"guidance_scale": 0.5}, r"guidance_scale expected .* got 0\.5"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"num_threads": 0}, "num_threads=0"),
        ({"increment": "none"}, "increment='none'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            GuidanceTask(source, **{**SETTINGS, **changes})
    for task in (GuidanceTask(source), SimulationTask(_target())):
        with pytest.raises(ValueError, match="trains nothing"):
            task.setup("fit")
    with pytest.raises(ValueError, match="num_groups=0"):
        SimulationDataModule(0)


def _target():
    path = VariancePreserving()
    return Target.guided(GaussianMixture([[0.0], [2.0]], 0.5).on(path), GaussianMixture([[1.0]], 1.0).on(path), 1.5)


def test_groups_do_not_depend_on_the_batch(tmp_path):
    settings = {"num_particles": 50, "num_steps": 20}
    runs = [
        _trainer(tmp_path).predict(SimulationTask(_target(), **settings), SimulationDataModule(3, batch_size=size))
        for size in (1, 3)
    ]
    together = runs[1][0]
    for b, alone in enumerate(runs[0]):
        assert torch.equal(alone.samples[0], together.samples[b])
    direct = simulate(_target(), generator=group_generators(0, [2]), **settings)
    assert torch.equal(direct.samples[0], together.samples[2])


@pytest.fixture
def in_a_copy(tmp_path, monkeypatch, folder):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    monkeypatch.setattr(fklit.assets, "path", lambda name: folder / name)
    return tmp_path


def test_the_smoke_test_configs_run_as_they_are(in_a_copy):
    quiet = ("--trainer.enable_progress_bar", "false")
    main(["predict", "--config", "configs/debug/correctors_mixtures.yaml", *quiet])
    with np.load(in_a_copy / "outputs" / "debug" / "mixtures" / "00002.npz") as arrays:
        assert arrays["samples"].shape == (200, 1) and arrays["log_weight_std"].shape == (40,)
    cli = main(["test", "--config", "configs/debug/correctors_gmm40.yaml", *quiet])
    logged = cli.trainer.callback_metrics
    assert {f"test/{name}" for name in ("w1", "w2", "tv", "mmd", "energy_w2", "mode_tv", "ess", "log_z")} <= set(logged)
    assert 0 < float(logged["test/w1"]) < 40
    main(["predict", "--config", "configs/debug/correctors_emoji.yaml", *quiet])
    out = in_a_copy / "outputs" / "debug" / "emoji_guidance"
    assert (out / "00001" / "record.json").is_file() and (out / "report.html").is_file()
