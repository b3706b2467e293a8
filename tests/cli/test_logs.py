"""No log of an earlier run is lost to a run with the same configuration: Lightning numbers the runs."""

import csv
import shutil
import sys
from pathlib import Path

import pytest

from fklit.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "debug" / "eqprop_digits.yaml"
LOGGERS = """
trainer:
  logger:
    - class_path: lightning.pytorch.loggers.CSVLogger
      init_args: {save_dir: logs, name: digits}
    - class_path: lightning.pytorch.loggers.TensorBoardLogger
      init_args: {save_dir: logs, name: digits}
  callbacks:
    - {class_path: ModelCheckpoint, init_args: {save_last: true}} # into the folder of the log
"""
FOLDER = Path("logs/digits")
LAST = FOLDER / "version_0" / "checkpoints" / "last.ckpt"


pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")  # Lightning's, of a new folder


def run(subcommand, *extra):
    small = ("--data.num_train=40", "--data.num_test=20", "--model.homeostasis=null")
    return main([subcommand, f"--config={CONFIG}", "--config=loggers.yaml", *small, *extra])


def fit(*extra, epochs=1):
    return run("fit", f"--trainer.max_epochs={epochs}", *extra)


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


def files(folder=FOLDER):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path):
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_all_loggers_of_a_run_share_a_folder_and_other_runs_leave_it_alone():
    before = files()
    assert {f"version_0/{name}" for name in ("metrics.csv", "config.yaml", "hparams.yaml")} <= before.keys()
    assert "version_0/checkpoints/last.ckpt" in before
    for number, subcommand in enumerate(["validate", "test", "predict"], 1):
        cli = run(subcommand, f"--ckpt_path={LAST}")
        own = FOLDER / f"version_{number}"
        assert {Path(logger.log_dir) for logger in cli.trainer.loggers} == {own}
        assert (own / "config.yaml").is_file()
        if subcommand != "predict":
            stage = {"validate": "val", "test": "test"}[subcommand]
            value = cli.trainer.callback_metrics[f"{stage}/top1"]
            assert float(rows(own / "metrics.csv")[-1][f"{stage}/top1"]) == value
        after = files()
        assert after.items() >= before.items()
        before = after


@pytest.mark.slow
def test_a_resumed_training_keeps_the_metrics_before_it():
    first = files()
    cli = fit(f"--ckpt_path={LAST}", epochs=2)
    assert cli.trainer.global_step == 4
    second = files()
    assert second.items() >= first.items()
    steps = [
        [row["step"] for row in rows(FOLDER / f"version_{n}" / "metrics.csv") if "train/loss" in row] for n in (0, 1)
    ]
    assert steps == [["0", "1"], ["2", "3"]]


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_folder_with_the_log_of_another_run_is_refused(subcommand):
    before = files()
    logger = '{class_path: CSVLogger, init_args: {save_dir: logs, name: digits, version: "version_0"}}'
    with pytest.raises(ValueError, match=r"version_0/metrics\.csv, which CSVLogger would delete; omit `version`"):
        run(subcommand, f"--trainer.logger={logger}")
    assert files() == before
    cli = run("test", f"--trainer.logger={logger.replace('version_0', 'mine')}")
    assert "test/top1" in rows(Path(cli.trainer.log_dir) / "metrics.csv")[-1]


def test_a_trial_run_logs_nothing():
    before = files()
    fit("--trainer.fast_dev_run=1")
    assert files() == before
