"""Metrics attached by YAML alone: `validate` and `test` of four kinds of tasks write them to TensorBoard's files.

One process and two, with a number of prompts that does not divide, say the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_art import write_fake_art
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fklit import assets
from fklit.cli import main

REPOSITORY = Path(__file__).parents[1]
DEBUG = REPOSITORY / "configs" / "debug"
PROMPTS = [
    {"prompt": "a green heart", "tag": "colors"},
    {"prompt": "a cat and a dog", "tag": "two_object"},
    {"prompt": "two dogs", "tag": "counting"},
]
METRICS = """
trainer:
  callbacks:
    - class_path: MetricsCallback
      init_args:
        metrics:
          clip_score: {class_path: MeanCLIPScore, init_args: {model_name: fklit:emoji_clip}}
          image_reward:
            class_path: RewardMetric
            init_args: {reward: {class_path: ImageReward, init_args: {model_name: fklit:emoji_reward}}}
          diversity: {class_path: CLIPDiversity, init_args: {model_name: fklit:emoji_clip}}
"""
RED = {"class_path": "Function", "init_args": {"fn": "steering_rewards:redness"}}
QUIET = ("--trainer.enable_progress_bar", "false")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model:UserWarning"),
    # outside of training the averaged weights are those of the checkpoint
    pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback, but loading:UserWarning"),
    pytest.mark.filterwarnings("ignore::fklit.callbacks.RewardHackingWarning"),
    pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders"),
]


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def logger(folder):
    made = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": folder, "name": "x"}}
    return ("--trainer.logger", json.dumps(made), "--trainer.default_root_dir", folder)


def scalars(folder):
    """All scalars below a folder, their last values."""
    found = {}
    for path in sorted(Path(folder).rglob("events.*")):
        events = EventAccumulator(str(path)).Reload()
        found |= {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return found


def run(stage, folder, *words, processes=1):
    command = [stage, *words, *QUIET, *logger(folder), "--trainer.accelerator", "cpu"]
    if processes == 1:
        main(command)
    else:
        settings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
        two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
        result = subprocess.run(
            [sys.executable, "-m", "fklit", *command, *two], env=settings, capture_output=True, text=True, timeout=500,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "Starting with 2 processes" in result.stderr + result.stdout
    return scalars(folder)


def same(one, two, *, without=()):
    assert one.keys() == two.keys()
    for name in one.keys() - set(without):
        assert two[name] == pytest.approx(one[name], abs=2e-5, nan_ok=True), name


@pytest.mark.parametrize("kind", ["steering", "correctors_emoji"])
def test_steering_and_correcting(kind):
    Path("metrics.yaml").write_text(METRICS)
    words = ("--config", str(DEBUG / f"{kind}.yaml"), "--config", "metrics.yaml")
    words += ("--data.prompts", json.dumps(PROMPTS), "--data.batch_size", "2")
    if kind == "steering":  # by another model than those of the metrics
        words += ("--model.reward", json.dumps(RED), "--model.reward_scale", "30")
    validated, tested = run("validate", "val", *words), run("test", "test", *words)
    for name in ("clip_score", "image_reward", "diversity", "unique_roots", "log_z"):
        assert validated[f"val/{name}"] == tested[f"test/{name}"], name
    assert 0 < tested["test/diversity"] < 2 and -100 < tested["test/clip_score"] < 100
    gains = {f"test/{what}/image_reward{tag}" for what in ("base", "steered", "gain") for tag in ("", "/colors")}
    assert gains <= tested.keys() and tested["test/steered/image_reward"] == tested["test/image_reward"]
    assert ("test/gain/reward" in tested) == (kind == "steering")
    two = run("test", "two", *words, processes=2)
    same(tested, two, without=("test/seconds",))


def test_equilibrium_propagation():
    alignment = {"class_path": "AlignmentCallback", "init_args": {"num_batches": 4}}
    f1 = {"class_path": "torchmetrics.classification.MulticlassF1Score", "init_args": {"num_classes": 10}}
    metrics = {"class_path": "MetricsCallback", "init_args": {"metrics": {"f1": f1}}}
    words = ("--config", str(DEBUG / "eqprop_digits.yaml"), "--trainer.callbacks", json.dumps([metrics, alignment]))
    validated, tested = run("validate", "val", *words), run("test", "test", *words)
    assert 0 <= validated["val/f1"] <= 1 and 0 <= tested["test/f1"] <= 1
    assert {name.removeprefix("test/") for name in tested if "alignment" in name} == {
        name for name in validated if "alignment" in name
    }
    assert any(name.startswith("test/alignment/error/") for name in tested)
    two = run("test", "two", *words, processes=2)
    # the symmetry score is taken on the first batch of each process, which holds other samples
    same(tested, two, without=("test/alignment/symmetry",))


def test_text_to_image_training_and_its_checkpoint(tmp_path):
    vae = str(assets.path("emoji_scenes") / "vae")
    data = ("--data.data_dir", write_fake_art(tmp_path / "emoji"), "--data.autoencoder", vae)
    words = ("--config", str(DEBUG / "text_to_image.yaml"), *data, "--model.autoencoder", vae)
    words += ("--model.num_samples", "3", "--model.export_dir", "null")
    words += ("--trainer.callbacks.init_args.dirpath", str(tmp_path / "saved"))
    main(["fit", *words, *QUIET, *logger("fit"), "--trainer.val_check_interval", "3"])
    fitted = scalars("fit")
    assert {"val/clip_score", "val/image_reward", "val/loss"} <= fitted.keys()
    # positions of tokens, which averaging rounds down, are in no checkpoint: the two draw alike if they were restored
    words += ("--ckpt_path", str(tmp_path / "saved" / "last.ckpt"))
    validated, tested = run("validate", "val", *words), run("test", "test", *words)
    for name in ("clip_score", "image_reward"):
        assert validated[f"val/{name}"] == pytest.approx(fitted[f"val/{name}"], abs=1e-4), "the averaged weights"
        assert tested[f"test/{name}"] == validated[f"val/{name}"], "the same prompts and noise"
    two = run("test", "two", *words, processes=2)
    same(tested, two, without=("test/loss",))  # whose noise is that of a batch
    assert torch.isfinite(torch.tensor([*tested.values()])).all()
