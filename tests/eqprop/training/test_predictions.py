"""`fklit predict` with labeled images: every test image once, in order, and one file whatever the processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fklit.cli import main
from fklit.data import DigitsDataModule

REPOSITORY = Path(__file__).parents[3]
CONFIG = REPOSITORY / "configs" / "debug" / "eqprop_digits.yaml"
ROWS = 23  # on two processes 12 and 11, in batches of 5


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])  # Lightning warns if words are given twice


def words(path, *extra, config=CONFIG):
    writer = ("--trainer.callbacks+=ClassificationWriter", f"--trainer.callbacks.path={path}")
    data = (f"--data.num_test={ROWS}", "--data.batch_size=5")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.logger=false", "--trainer.enable_model_summary=false")
    return ["predict", f"--config={config}", *data, *quiet, *writer, *extra]


@pytest.mark.slow
def test_one_process_writes_every_test_image_once_in_order():
    cli = main(words("of/classes.pt"))
    assert cli.trainer.predict_loop.predictions == []  # nothing is kept that nobody on a command line receives
    found = torch.load("of/classes.pt", weights_only=True)
    data = DigitsDataModule(num_test=ROWS)
    data.setup("test")
    rows = data.test_rows
    assert found["index"].tolist() == rows.tolist() and len(rows) == ROWS
    x = data.normalization()(data.test_images.read(rows))
    torch.testing.assert_close(found["scores"], cli.model(x).detach())
    assert torch.equal(found["prediction"], found["scores"].argmax(1)) and found["scores"].shape == (ROWS, 10)
    main(words("workers.pt", "--data.num_workers=1"))
    workers = torch.load("workers.pt", weights_only=True)
    assert all(torch.equal(workers[name], found[name]) for name in ("index", "prediction", "scores"))
    assert [path.name for path in Path("of").iterdir()] == ["classes.pt"]


def test_from_python_predictions_come_in_batches_of_the_asked_size():
    from lightning.pytorch import Trainer

    task = main(words("unused.pt")).model
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    batches = Trainer(accelerator="cpu", devices=1, **quiet).predict(
        task, datamodule=DigitsDataModule(batch_size=5, num_test=ROWS)
    )
    assert [len(batch["index"]) for batch in batches] == [5, 5, 5, 5, 3]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_write_the_file_of_one():
    main(words("one.pt"))
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--data.num_workers=1"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fklit", *words("two.pt", *two)]
    run = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stderr
    one, both = (torch.load(name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert torch.equal(one["index"], both["index"]) and torch.equal(one["prediction"], both["prediction"])
    torch.testing.assert_close(one["scores"], both["scores"], atol=1e-4, rtol=1e-4)  # other batches, other last bits
