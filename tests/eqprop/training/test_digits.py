"""Trainings on digits: what the homeostatic loss is for, and which order of updates converges."""

import csv
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from equilibria import relative
from filelock import FileLock
from lightning.pytorch import Trainer

from fklit.cli import main
from fklit.data import DigitsDataModule
from fklit.eqprop.learning.estimators import Symmetric
from fklit.eqprop.presets import MLP
from fklit.eqprop.relaxation.fields import NetworkField
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.eqprop.training.task import EqPropTask

CONFIG = Path(__file__).parents[3] / "configs" / "eqprop" / "digits.yaml"


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
    """Runs of the configuration by seed and whether the loss is there; each is run once, by one of the processes."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # of this session

    def run(seed, homeostasis):
        path = shared / f"digits-{seed}-{homeostasis}.json"
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                with pytest.MonkeyPatch.context() as patch:
                    off = [] if homeostasis else ["--model.homeostasis=null"]
                    rows = train(tmp_path_factory.mktemp("digits"), patch, f"--seed_everything={seed}", *off)
                path.write_text(json.dumps(rows))
            return json.loads(path.read_text())

    return run


@pytest.mark.slow
@pytest.mark.parametrize("homeostasis", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("seed", range(2))
def test_homeostasis_aligns(trained, seed, homeostasis):
    """Error vectors of the first hidden layer against backpropagation's, after 10 and 30 epochs."""
    for epoch, aligned in ((9, 0.8), (29, 0.94)):
        cosine = trained(seed, homeostasis)[epoch]["alignment/error/l1"]
        assert cosine > aligned if homeostasis else cosine < 0.5


@pytest.mark.slow
def test_homeostasis_helps(trained):
    """It learns in fewer epochs: three points of accuracy in the mean of all epochs, the mean of two seeds.

    The last epoch alone does not decide: 360 images and even three seeds leave two points of chance, and other
    processors round other runs.
    """

    def mean_of_epochs(seed, homeostasis):
        rows = trained(seed, homeostasis)
        return sum(row["val/top1"] for row in rows) / len(rows)

    gains = [mean_of_epochs(seed, True) - mean_of_epochs(seed, False) for seed in range(2)]
    assert sum(gains) / 2 >= 0.03, gains  # of three seeds 0.08 where measured, and 0.058 in the worst


@pytest.mark.slow
def test_sequential_updates_relax_a_trained_network(tmp_path):
    """Less than 0.6 of the iterations of synchronous updates, all samples converge, the same fixed points."""
    torch.manual_seed(0)
    nudged = Relaxation(max_iterations=10, tolerance=1e-6)
    network = MLP(
        (1, 8, 8), (64, 64), tied=True, free=Relaxation(max_iterations=75), estimator=Symmetric(0.1, relaxation=nudged)
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

    def relaxed(order, tolerance=1e-4):
        return relax(
            field, network.zero_state(len(x)), Relaxation(max_iterations=2000, tolerance=tolerance, order=order)
        )

    even_odd, synchronous = relaxed("sequential"), relaxed("synchronous")
    assert even_odd.converged.all()
    assert float(even_odd.iterations.double().median()) <= 0.6 * float(synchronous.iterations.double().median())
    network.double()
    field = NetworkField(network, tuple(part.detach() for part in network.drive(x.double())))
    both = [relaxed(order, 1e-9) for order in ("sequential", "synchronous")]
    rows = both[1].converged  # synchronous updates leave the others in cycles of two
    assert both[0].converged.all() and rows.double().mean() > 0.8
    assert relative(*(tuple(part[rows] for part in result.state) for result in both)) < 1e-5
