"""GuidanceTask and SimulationTask with a real Trainer, and their configurations as they are."""

import inspect
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
from fklit.callbacks import SampleWriter, SimulationWriter
from fklit.cli import main
from fklit.correctors import (
    EulerMaruyama,
    FittedControl,
    Ramp,
    Target,
    VariancePreserving,
    correct,
    simulate,
)
from fklit.correctors.guidance.task import GuidanceTask
from fklit.correctors.simulation.task import SimulationTask
from fklit.data import PromptDataModule, SimulationDataModule
from fklit.feynman_kac import group_generators, systematic
from fklit.metrics.distributions import energy_wasserstein, mmd, total_variation, wasserstein
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


def test_defaults_are_those_of_simulate():
    task, function = (inspect.signature(f).parameters for f in (SimulationTask.__init__, simulate))
    shared = (task.keys() & function.keys()) - {"self", "target", "dtype"}
    assert {"num_particles", "num_steps", "ess_threshold", "clamp", "seed"} <= shared
    for name in shared:
        assert task[name].default == function[name].default, name
    assert getattr(torch, task["dtype"].default) == function["dtype"].default


@pytest.mark.filterwarnings("ignore:The state dict in .* contains no parameters")
def test_a_checkpoint_holds_the_settings(tmp_path):
    exponent = Ramp(1.0, 1.5)
    path = VariancePreserving()
    law = GaussianMixture([[0.0], [2.0]], 0.5, [1.0, 3.0])
    target = Target.guided(law.on(path), GaussianMixture([[1.0]], 1.0).on(path), exponent)
    settings = {
        "num_particles": 30,
        "num_steps": 10,
        "dtype": "float64",
        "seed": 5,
        "control": FittedControl(ridge=0.1),
    }
    task = SimulationTask(target, reference=law, proposal=EulerMaruyama("target_score"), **settings)
    trainer, data = _trainer(tmp_path), SimulationDataModule(2)
    first = trainer.predict(task, data)
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    saved = torch.load(tmp_path / "task.ckpt", weights_only=True)
    assert saved["state_dict"] == {}
    loaded = SimulationTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    assert loaded.target.exponents(0.5) == (1.25, -0.25) and torch.equal(loaded.reference.means, law.means)
    for one, two in zip(first, trainer.predict(loaded, data), strict=True):
        assert torch.equal(one.samples, two.samples) and torch.equal(one.log_weights, two.log_weights)
    more = SimulationTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True, num_particles=7)
    assert trainer.predict(more, data)[0].samples.shape == (1, 7, 1)


def test_figures_compare_with_the_reference():
    law = GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], 0.05, [0.3, 0.7])
    result = simulate(Target.annealed(law.on(VariancePreserving()), 1.2), num_particles=400, num_steps=30, seed=1)
    assert len(set(result.ess[:, 0].tolist())) > 2, "steps differ"
    task = SimulationTask(_target(), reference=law, unit=2.0, extent=4.0)
    found = task.figures(result, 0, 3)
    assert found["ess"] == float(result.ess[-1, 0]) and found["log_z"] == float(result.log_z[0])
    assert found["log_weight_std"] == float(result.log_weight_std[:, 0].mean())
    slots = systematic(result.log_weights, torch.Generator().manual_seed(3))[0]
    x, y = result.samples[0][slots], law.sample((400,), torch.Generator().manual_seed(10_003))
    assert (found["w1"], found["w2"]) == wasserstein(2 * x, 2 * y, seed=3)
    nearest = [torch.cdist(points.double(), law.means).argmin(dim=1).double().mean() for points in (x, y)]
    assert found["mode_tv"] == pytest.approx(float((nearest[0] - nearest[1]).abs()))
    assert found["tv"] == total_variation(2 * x, 2 * y, low=-4.0, high=4.0)
    deviation = float((2 * y).std())
    bandwidths = (0.05 * deviation, 0.2 * deviation, deviation)
    assert found["mmd"] == mmd(2 * x, 2 * y, bandwidths=bandwidths, seed=3)
    energies = energy_wasserstein(x, y, lambda points: -law.log_density(points))
    assert (found["energy_w1"], found["energy_w2"]) == energies
    line = GaussianMixture([[0.0]], 1.0)
    assert "tv" not in SimulationTask(_target(), reference=line).means and task.means.keys() == found.keys()
    assert set(SimulationTask(_target()).means) == {
        "min_ess",
        "unique_roots",
        "ess",
        "log_z",
        "log_weight_std",
    }


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_training_is_refused(tmp_path):
    with pytest.raises(ValueError, match="SimulationTask, which trains nothing"):
        _trainer(tmp_path, max_epochs=1).fit(SimulationTask(_target()), [torch.zeros(1)])


def test_validate_says_what_test_says(tmp_path):
    settings = {"num_particles": 20, "num_steps": 6}
    said = {
        stage: getattr(_trainer(tmp_path), stage)(
            SimulationTask(_target(), **settings), SimulationDataModule(3, batch_size=2), verbose=False
        )[0]
        for stage in ("validate", "test")
    }
    assert {f"test/{name.removeprefix('val/')}": value for name, value in said["validate"].items()} == said["test"]
    assert "val/log_z" in said["validate"]


def test_files_hold_what_was_simulated(tmp_path):
    writer = SimulationWriter(str(tmp_path / "out"))
    settings = {"num_particles": 20, "num_steps": 6, "ess_threshold": 1.0}
    batches = _trainer(tmp_path, callbacks=[writer]).predict(
        SimulationTask(_target(), **settings), SimulationDataModule(3, batch_size=2)
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"0000{n}.{kind}" for n in range(3) for kind in ("json", "npz")
    ]
    result = batches[0]
    with np.load(tmp_path / "out" / "00001.npz") as arrays:
        assert set(arrays) == {"samples", "log_weights", "ess", "log_weight_std"}
        assert np.array_equal(arrays["samples"], result.samples[1].numpy())
        assert np.array_equal(arrays["log_weights"], result.log_weights[1].numpy())
        assert np.array_equal(arrays["ess"], result.ess[:, 1].numpy())
        assert np.array_equal(arrays["log_weight_std"], result.log_weight_std[:, 1].numpy())
    record = json.loads((tmp_path / "out" / "00001.json").read_text())
    assert record["log_z"] == float(result.log_z[1]) and record["ess"] == float(result.ess[-1, 1])
    assert record["resamplings"] == int(result.resampled[:, 1].sum()) and record["num_steps"] == 6
    assert record["denoiser_calls"] == 2 * 20 * 6


@pytest.fixture
def in_a_copy(tmp_path, monkeypatch, folder):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    shipped = fklit.assets.path
    monkeypatch.setattr(fklit.assets, "path", lambda name: folder / name if (folder / name).exists() else shipped(name))
    return tmp_path


@pytest.mark.slow
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
