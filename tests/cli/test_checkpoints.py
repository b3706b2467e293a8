"""Hyperparameters of a checkpoint fill in what is not given, and never win over what is."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.demos.boring_classes import BoringModel

from fklit.cli import main
from fklit.renamed import OLD_CHECKPOINT_KEY


class Slope:
    def __init__(self, slope: float = 1.0, offset: float = 0.0) -> None:
        self.slope, self.offset = slope, offset


class Power(Slope):
    def __init__(self, power: int = 2) -> None:
        self.power = power


class Model(BoringModel):
    def __init__(self, width: int = 4, depth: int = 2, shape: Slope | None = None, extra: dict | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.width, self.depth, self.shape, self.extra = width, depth, shape, extra


class OtherModel(BoringModel):
    def __init__(self, depth: int = 7) -> None:
        super().__init__()
        self.depth = depth


HERE = __name__


def configuration(**model):
    return {
        "model": {"class_path": f"{HERE}.Model", "init_args": model},
        "data": {"class_path": "lightning.pytorch.demos.boring_classes.BoringDataModule"},
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "max_epochs": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


@pytest.fixture
def saved():
    """A checkpoint of a model with width 8 from its configuration and depth 5 from the command line."""
    shape = {"class_path": f"{HERE}.Slope", "init_args": {"slope": 3.0}}
    Path("model.yaml").write_text(yaml.safe_dump(configuration(width=8, shape=shape, extra={"a": 1})))
    cli = main(["fit", "--config=model.yaml", "--model.depth=5", "--trainer.enable_checkpointing=false"])
    cli.trainer.save_checkpoint("saved.ckpt")
    return "saved.ckpt"


def validated(saved, *words):
    return main(["validate", *words, f"--ckpt_path={saved}"]).model


def test_what_is_not_given_comes_from_the_checkpoint(saved):
    model = validated(saved, "--config=model.yaml")
    assert (model.width, model.depth, model.shape.slope, model.extra) == (8, 5, 3.0, {"a": 1})


def test_the_configuration_wins(saved):
    shape = {"class_path": f"{HERE}.Slope", "init_args": {"offset": 0.5}}
    Path("changed.yaml").write_text(yaml.safe_dump(configuration(width=16, shape=shape, extra={"b": 2})))
    model = validated(saved, "--config=changed.yaml")
    assert (model.width, model.depth, model.extra) == (16, 5, {"b": 2})
    assert (model.shape.slope, model.shape.offset) == (3.0, 0.5)


def test_the_command_line_wins(saved):
    model = validated(saved, "--config=model.yaml", "--model.width=2", "--model.depth=2", f"--model.shape={HERE}.Power")
    assert (model.width, model.depth, model.shape.power) == (2, 2, 2)
    assert validated(saved, "--config=model.yaml", "--model.shape=null").shape is None


def test_the_checkpoint_of_another_class_says_nothing(saved):
    assert validated(saved, "--config=model.yaml", f"--model={HERE}.OtherModel").depth == 7


def test_settings_from_python_win(saved):
    settings = configuration(width=3) | {"ckpt_path": saved}
    model = main({"subcommand": "validate", "validate": settings}).model
    assert (model.width, model.depth, model.shape.slope) == (3, 5, 3.0)


def test_what_was_trained_is_what_is_saved(saved):
    cli = main(["fit", "--config=model.yaml", "--model.width=6", f"--ckpt_path={saved}", "--trainer.max_epochs=2"])
    assert (cli.model.hparams["width"], cli.model.hparams["depth"]) == (6, 5)


def test_hyperparameters_that_no_longer_fit_are_named(saved, capsys):
    checkpoint = torch.load(saved, weights_only=True)
    checkpoint["hyper_parameters"]["with_bias"] = True
    torch.save(checkpoint, "other.ckpt")
    with pytest.raises(SystemExit):
        validated("other.ckpt", "--config=model.yaml")
    error = capsys.readouterr().err
    assert "expected an argument of Model, got 'with_bias'" in error and "hyperparameters of other.ckpt" in error


def test_what_is_no_checkpoint_and_what_version_0_1_wrote_is_refused(saved):
    Path("text.ckpt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"expected a checkpoint of Lightning, got text\.ckpt"):
        validated("text.ckpt", "--config=model.yaml")
    torch.save({"state_dict": {}, OLD_CHECKPOINT_KEY: {"name": "sgd"}}, "old.ckpt")
    with pytest.raises(ValueError, match=r"of fklit 0\.2 or newer, got old\.ckpt of EqPropTask in fklit 0\.1"):
        validated("old.ckpt", "--config=model.yaml")
