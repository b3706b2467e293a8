"""Trainings on digits: what the homeostatic loss is for, and which order of updates settles."""

import csv
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from equilibria import relative
from lightning.pytorch import Trainer

from fklit.cli import main
from fklit.data import DigitsDataModule
from fklit.eqprop.dynamics import Relaxation, settle
from fklit.eqprop.estimators import Symmetric
from fklit.eqprop.fields import NetworkField
from fklit.eqprop.presets import MLP
from fklit.eqprop.task import EqPropTask

CONFIG = Path(__file__).parents[2] / "configs" / "eqprop" / "digits.yaml"


def train(folder, monkeypatch, *extra):
    """Runs the configuration; returns one dictionary of the validation's values an epoch."""
    monkeypatch.setattr(sys, "argv", ["fklit"])
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    logger = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={folder}"]
    main(["fit", f"--config={CONFIG}", f"--trainer.default_root_dir={folder}", *quiet, *logger, *extra])
    (path,) = Path(folder).rglob("metrics.csv")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/top1"]]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of the configuration by seed and whether the loss is there; each is run once, when it is asked for."""

    @cache
    def run(seed, homeostasis):
        folder = tmp_path_factory.mktemp("digits")
        with pytest.MonkeyPatch.context() as patch:
            off = [] if homeostasis else ["--model.homeostasis=null"]
            return train(folder, patch, f"--seed_everything={seed}", *off)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("homeostasis", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("seed", range(3))
def test_homeostasis_aligns(trained, seed, homeostasis):
    """Error vectors of the first hidden layer against backpropagation's, after 10 and 30 epochs."""
    for epoch, aligned in ((9, 0.8), (29, 0.94)):
        cosine = trained(seed, homeostasis)[epoch]["alignment/error/l1"]
        assert cosine > aligned if homeostasis else cosine < 0.5


@pytest.mark.slow
def test_homeostasis_helps(trained):
    """At least three points of accuracy, in the mean of three seeds."""
    gains = [trained(seed, True)[-1]["val/top1"] - trained(seed, False)[-1]["val/top1"] for seed in range(3)]
    assert sum(gains) / 3 >= 0.03, gains


@pytest.mark.slow
def test_even_and_odd_sweeps_settle_a_trained_network(tmp_path):
    """Less than 0.6 of the steps of synchronous updates, nobody unsettled, the same fixed points."""
    torch.manual_seed(0)
    nudged = Relaxation(max_steps=10, tolerance=1e-6)
    network = MLP(
        (1, 8, 8), (64, 64), tied=True, free=Relaxation(max_steps=75), estimator=Symmetric(0.1, relaxation=nudged)
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=30,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    data = DigitsDataModule(batch_size=50)
    trainer.fit(EqPropTask(network), datamodule=data)
    assert float(trainer.callback_metrics["val/top1"]) > 0.85
    x = torch.cat([batch["x"] for batch in data.test_dataloader()])
    field = NetworkField(network, tuple(part.detach() for part in network.drive(x)))

    def settled(order, tolerance=1e-4):
        return settle(field, network.zero_state(len(x)), Relaxation(max_steps=2000, tolerance=tolerance, order=order))

    even_odd, synchronous = settled("sweep"), settled("synchronous")
    assert even_odd.settled.all()
    assert float(even_odd.steps.double().median()) <= 0.6 * float(synchronous.steps.double().median())
    network.double()
    field = NetworkField(network, tuple(part.detach() for part in network.drive(x.double())))
    both = [settled(order, 1e-9) for order in ("sweep", "synchronous")]
    rows = both[1].settled  # the synchronous ones that are not go round in cycles of two
    assert both[0].settled.all() and rows.double().mean() > 0.8
    assert relative(*(tuple(part[rows] for part in report.state) for report in both)) < 1e-5
