"""A denoiser learns a mixture in two dimensions, and serves as an expert on every path."""

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from fklit.analytic import GaussianMixture
from fklit.cli import main
from fklit.correctors import EDM, LinearFlow, ScoreModel, Target, VariancePreserving, simulate
from fklit.correctors.targets.denoiser import DenoiserMLP
from fklit.correctors.targets.score_model_task import ScoreModelTask
from fklit.data.mixtures import MixtureDataModule

MEANS, VARIANCES, WEIGHTS = [[-1.0, 0.5], [1.0, -0.5]], [0.1, 0.2], [0.4, 0.6]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("expert")
    task = ScoreModelTask(DenoiserMLP(2, 64, 2), learning_rate=5e-3, warmup_steps=20, export_dir=str(folder))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=800,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[EMAWeightAveraging(decay=0.98)],
    )
    trainer.fit(task, MixtureDataModule(MEANS, VARIANCES, WEIGHTS, num_train=20_000, num_val=2_000, batch_size=256))
    assert float(trainer.callback_metrics["val/loss"]) < 0.95  # 1: the best linear denoiser
    return DenoiserMLP.load(folder)


@pytest.mark.slow
def test_it_denoises_as_the_truth_does(trained):
    law = GaussianMixture(MEANS, VARIANCES, WEIGHTS)
    x0 = law.sample((500,), torch.Generator().manual_seed(1))
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    for sigma in (0.3, 0.5, 1.0):
        x = x0 + sigma * noise
        with torch.no_grad():
            found = trained(x, torch.full((500,), sigma))
        truth = law.denoised(x, 1.0, sigma)
        mean, variance = law.moments()
        linear = (mean + variance / (variance + sigma**2) * (x - mean)).float()  # the best linear denoiser
        assert (found - truth).square().mean() < 0.2 * (linear - truth).square().mean()


@pytest.mark.parametrize(
    "path", [VariancePreserving(), EDM(0.02, 20.0), LinearFlow(stop=0.01)], ids=lambda p: type(p).__name__
)
def test_it_is_an_expert_on_every_path(trained, path):
    model = ScoreModel(trained, path, prediction="edm", event_shape=(2,))
    times = path.grid(60, stop=0.02)
    run = simulate(Target.annealed(model.given(), 1.0), num_particles=800, times=times, seed=1)
    mean, variance = GaussianMixture(MEANS, VARIANCES, WEIGHTS).moments()
    found = run.samples[0].double()
    assert (found.mean(dim=0) - mean).abs().max() < 0.15
    assert (found.var(dim=0) / variance - 1).abs().max() < 0.3
    assert run.log_weights.std() < 1e-9  # one expert to the power 1 needs no correction


def test_the_debug_configuration_trains_and_exports(tmp_path, monkeypatch):
    config = Path(__file__).parents[3] / "configs" / "debug" / "score_model.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["fit", "--config", str(config)])
    assert DenoiserMLP.load(tmp_path / "outputs/debug/score_model/folder").width == 32
    assert (tmp_path / "outputs/debug/score_model/checkpoints/last.ckpt").is_file()


def test_a_checkpoint_holds_network_and_settings(tmp_path):
    torch.manual_seed(0)
    task = ScoreModelTask(DenoiserMLP(2, 8, 1, data_std=0.5), learning_rate=1e-3)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", devices=1, max_steps=2, max_epochs=-1, default_root_dir=tmp_path, **quiet)
    trainer.fit(task, MixtureDataModule(MEANS, VARIANCES, num_train=64, num_val=32, batch_size=32))
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    loaded = ScoreModelTask.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True)
    assert loaded.learning_rate == 1e-3 and loaded.denoiser.settings() == task.denoiser.settings()
    for name, value in task.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_bad_settings_and_batches():
    with pytest.raises(ValueError, match="dim=0"):
        DenoiserMLP(0)
    with pytest.raises(ValueError, match="learning_rate=0"):
        ScoreModelTask(DenoiserMLP(2), learning_rate=0.0)
    with pytest.raises(ValueError, match="expected vectors"):
        ScoreModelTask(DenoiserMLP(2)).training_step(torch.zeros(2, 3, 4), 0)
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        MixtureDataModule(MEANS, VARIANCES, batch_size=0)
