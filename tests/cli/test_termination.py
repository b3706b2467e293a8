"""SIGTERM: a run saves what it has, and ends with the status that says so."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from tiny import tiny_stable_diffusion

from fklit.cli import main

CONFIGS = Path(__file__).parents[2] / "configs" / "debug"


class Terminates(Callback):
    """Sends SIGTERM to this process at the second batch, in the middle of it."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def status(monkeypatch, *words):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["fklit", *words])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        assert signal.getsignal(signal.SIGTERM) is before
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_fit_ends_its_step_saves_and_goes_on(monkeypatch, capsys):
    small = ("--data.num_train", "80", "--data.num_test", "20", "--model.homeostasis", "null")
    words = ("fit", "--config", str(CONFIGS / "eqprop_digits.yaml"), *small, "--trainer.max_epochs", "1")
    words = (*words, "--output_dir", "stopped", "--trainer.limit_val_batches", "0")
    assert status(monkeypatch, *words, "--trainer.callbacks", f"{__name__}.Terminates") == 143
    saved = "stopped/checkpoints/sigterm.ckpt"
    assert f"SIGTERM: saved {saved}; go on with --ckpt_path {saved}" in capsys.readouterr().out
    assert torch.load(saved, weights_only=True)["global_step"] == 2
    assert status(monkeypatch, *words, "--trainer.callbacks", "null", "--ckpt_path", saved) == 0


def test_predict_stops_at_once_and_goes_on(monkeypatch, tmp_path):
    tiny_stable_diffusion(tmp_path / "sd")
    reward = '{"class_path": "Function", "init_args": {"fn": "steering_rewards:redness"}}'
    words = ("predict", "--config", str(CONFIGS / "steering.yaml"), "--model.source.path", "sd", "--output_dir", "out")
    words = (*words, "--model.reward", reward, "--model.reward_scale", "30", "--trainer.enable_progress_bar", "false")
    stops = f'[{{class_path: SampleWriter}}, {{class_path: "{__name__}.Terminates"}}]'
    assert status(monkeypatch, *words, "--trainer.callbacks", stops) == 143
    assert [path.parent.name for path in Path("out").glob("*/record.json")] == ["00000"]
    assert not Path("out/run.lock").exists()
    assert status(monkeypatch, *words, "--trainer.callbacks", "SampleWriter") == 0
    assert len(list(Path("out").glob("*/record.json"))) == 2
