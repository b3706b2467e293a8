"""No log of an earlier run is lost to a run with the same configuration, although its logger names a fixed folder."""

import csv
import logging
import shutil
import sys
from pathlib import Path

import pytest

from fklit.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "debug" / "eqprop_digits.yaml"
LOGGERS = """
trainer:
  logger:
    - class_path: lightning.pytorch.loggers.TensorBoardLogger
      init_args: {save_dir: logs, name: digits, version: ""}
    - class_path: lightning.pytorch.loggers.CSVLogger
      init_args: {save_dir: logs, name: digits, version: ""}
  callbacks:
    - {class_path: ModelCheckpoint, init_args: {save_last: true}} # into the folder of the log
"""
FOLDER = Path("logs/digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a training has run."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["fklit"])  # Lightning warns if words are given twice
        Path("loggers.yaml").write_text(LOGGERS)
        fit()
    return folder


@pytest.fixture(autouse=True)
def _in_a_copy(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(sys, "argv", ["fklit"])


def run(subcommand, *extra):
    small = ("--data.num_train=40", "--data.num_test=20", "--model.homeostasis=null")
    return main([subcommand, f"--config={CONFIG}", "--config=loggers.yaml", *small, *extra])


def fit(*extra, epochs=1):
    return run("fit", f"--trainer.max_epochs={epochs}", *extra)


def files(folder=FOLDER):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path):
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_other_runs_than_fit_leave_the_log_of_a_training_alone(subcommand, caplog):
    caplog.set_level(logging.INFO, logger="lightning.pytorch")  # whatever another test made of it
    before = files()
    assert {"metrics.csv", "config.yaml", "hparams.yaml", "checkpoints/last.ckpt"} <= before.keys()
    cli = run(subcommand, "--ckpt_path=last")
    assert Path(cli.trainer.ckpt_path) == (FOLDER / "checkpoints" / "last.ckpt").resolve()
    own = FOLDER / subcommand / "version_0"
    assert {Path(logger.log_dir) for logger in cli.trainer.loggers} == {own}
    assert (own / "config.yaml").is_file()
    if subcommand != "predict":
        stage = {"validate": "val", "test": "test"}[subcommand]
        assert float(rows(own / "metrics.csv")[-1][f"{stage}/top1"]) == cli.trainer.callback_metrics[f"{stage}/top1"]
    first = files()
    assert first.items() >= before.items()
    assert f"logs/digits holds the log of another run, so this one's is in {own}." in caplog.text
    again = main([subcommand, f"--config={own / 'config.yaml'}"])
    assert files().items() >= first.items() and Path(again.trainer.log_dir) == FOLDER / subcommand / "version_1"
    assert again.trainer.ckpt_path == cli.trainer.ckpt_path


@pytest.mark.parametrize("version", ["mine", 7, None])
def test_a_logger_that_writes_over_nothing_is_left_as_it_was_asked_for(version):
    logger = f"{{class_path: CSVLogger, init_args: {{save_dir: logs, name: digits, version: {version or 'null'}}}}}"
    cli = run("test", f"--trainer.logger={logger}")
    assert cli.trainer.log_dir == f"logs/digits/{ {'mine': 'mine', 7: 'version_7', None: 'version_0'}[version] }"
    assert "test/top1" in rows(Path(cli.trainer.log_dir) / "metrics.csv")[-1]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_training_goes_on_with_its_metrics():
    before = rows(FOLDER / "metrics.csv")
    with (FOLDER / "metrics.csv").open("a", newline="") as file:
        file.write("0,9")  # a kill in the middle of a line
    # A column more than before, and one less.
    cli = fit("--ckpt_path=last", "--model.homeostasis={class_path: Homeostasis, init_args: {probes: 1}}", epochs=2)
    assert cli.trainer.global_step == 4
    after = rows(FOLDER / "metrics.csv")
    assert after[: len(before)] == before and len(after[len(before)]) == 2
    new = after[len(before) + 1 :]
    assert [row["step"] for row in new if "train/loss" in row] == ["2", "3"]
    assert all("train/homeostasis" in row for row in new if "train/loss" in row)
    assert sum("val/top1" in row for row in before) == sum("val/top1" in row for row in new) == 1
    assert not list(FOLDER.glob("*_1.*"))


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_training_from_the_start_sets_the_log_before_it_aside():
    names = ("metrics.csv", "config.yaml", "hparams.yaml")
    first = files()
    fit("--seed_everything=1")
    second = files()
    aside = {name: f"{Path(name).stem}_1{Path(name).suffix}" for name in names}
    assert all(second[aside[name]] == first[name] for name in names)
    assert second["metrics.csv"] != first["metrics.csv"] and len(rows(FOLDER / "metrics.csv")) == 3
    fit("--seed_everything=2")
    third = files()
    assert all(third[name] == second[name] for name in aside.values())
    assert third["metrics_2.csv"] == second["metrics.csv"]
    fit("--trainer.fast_dev_run=1", "--seed_everything=3")
    assert files() == third
