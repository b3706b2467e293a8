"""Checkpoints load without arguments: the task is built again as it was, and predicts the same bits."""

import sys
from pathlib import Path

import pytest
import torch
from equilibria import images
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from fklit.cli import main
from fklit.eqprop import (
    MLP,
    BackpropTask,
    Cauchy,
    ComplexStep,
    ConvNet,
    Convolution,
    CorrectedNudge,
    Dense,
    DoubleSiLU,
    EqPropTask,
    EquilibriumNetwork,
    ExactResponse,
    Execution,
    Homeostasis,
    Layer,
    LoopNet,
    OneSided,
    Online,
    OptimizerSettings,
    RecurrentBackprop,
    Relaxation,
    Symmetric,
    Tanh,
)
from fklit.hyperparameters import describe

DEBUG = Path(__file__).parents[3] / "configs" / "debug"
ESTIMATORS = [
    OneSided(0.3),
    Symmetric(0.4, relaxation=Relaxation(7, 1e-3)),
    Cauchy(5, 0.5, arithmetic="native"),
    ComplexStep(2e-3),
    ExactResponse(relaxation=Relaxation(9)),
    RecurrentBackprop(),
    CorrectedNudge(0.2),
    Online(5, 0.3, iterations_per_phase=6, num_periods=2, from_zero=True, relaxation=Relaxation(order="synchronous")),
    Online(tolerance=1e-5),
]


def graph(**more):
    return EquilibriumNetwork(
        (1, 8, 8),
        [Layer("edges", (3, 4, 4), DoubleSiLU()), Layer("left", (6,)), Layer("top", (10,), bias=False)],
        connections=[
            Convolution("input", "edges", gain=0.5),
            Dense("edges", "left", angle=30.0),
            Dense("left", "top", reciprocal=False),
            Dense("edges", "top", tied=True),
        ],
        output="left",
        num_classes=10,
        activation=Tanh(),
        execution=Execution(channels_last=True),
        **more,
    )


NETWORKS = {
    "graph": graph,
    "mlp": lambda **more: MLP((1, 8, 8), (9, 8), angle=40.0, gain=0.7, **more),
    "loop": lambda **more: LoopNet((1, 8, 8), (9, 8), **more),
    "conv": lambda **more: ConvNet((1, 8, 8), (3, 4), tied=True, **more),
}


def train(task, folder):
    x, y = images(16, (1, 8, 8), dtype=torch.float32)
    batches = DataLoader([{"x": a, "y": b, "index": i} for i, (a, b) in enumerate(zip(x, y, strict=True))], 8)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=1,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, batches, batches)
    return trainer.checkpoint_callback.best_model_path


def same(loaded, task):
    x, _ = images(5, (1, 8, 8), seed=1, dtype=torch.float32)
    assert loaded.hparams == task.hparams
    with torch.no_grad():
        return torch.equal(loaded(x), task(x))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_task_made_in_python(tmp_path, kind):
    network = NETWORKS[kind](free=Relaxation(12, 1e-3, rate=0.9), unconverged="drop")
    task = EqPropTask(
        network,
        nudge="loss",
        homeostasis=Homeostasis("squared", weight=0.3, probes=2, warmup_steps=3),
        optimizer=OptimizerSettings("sgd", 0.1, rate_factors={"readout": 0.5}),
    )
    path = train(task, tmp_path)
    loaded = EqPropTask.load_from_checkpoint(path, weights_only=True)
    assert type(loaded.network) is type(network) and same(loaded, task)
    assert loaded.nudge == "loss" and vars(loaded.homeostasis) == vars(task.homeostasis)
    assert loaded.optimizer == task.optimizer and loaded.network.free == network.free
    assert loaded.network.unconverged == "drop" and loaded.network.output == network.output
    changed = EqPropTask.load_from_checkpoint(path, homeostasis=None, nudge="gradient", weights_only=True)
    assert changed.homeostasis is None and changed.nudge == "gradient"
    assert torch.equal(next(changed.parameters()), next(task.parameters()))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_estimator(tmp_path, estimator):
    """Also one that was set after the network was made, as are the other policies."""
    network = MLP((1, 8, 8), (6,), estimator=Symmetric(0.9))
    network.estimator, network.free = estimator, Relaxation(11)
    path = train(EqPropTask(network), tmp_path)
    loaded = EqPropTask.load_from_checkpoint(path, weights_only=True).network
    assert type(loaded.estimator) is type(estimator) and vars(loaded.estimator) == vars(estimator)
    assert loaded.free == Relaxation(11)


def test_the_baseline(tmp_path):
    task = BackpropTask(MLP((1, 8, 8), (6,)), optimizer=OptimizerSettings(learning_rate=0.1))
    loaded = BackpropTask.load_from_checkpoint(train(task, tmp_path), weights_only=True)
    assert same(loaded, task) and loaded.optimizer == task.optimizer
    backward = loaded.network.link("l1-out").backward_weight
    assert not backward.requires_grad


@pytest.mark.parametrize("name", ["eqprop_digits", "eqprop_conv"])
@pytest.mark.slow
def test_a_task_built_by_the_command_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["fklit"])
    monkeypatch.chdir(tmp_path)
    words = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.callbacks", "null")
    cli = main(["fit", "--config", str(DEBUG / f"{name}.yaml"), *words, "--trainer.limit_val_batches", "0"])
    path = cli.trainer.checkpoint_callback.best_model_path
    loaded = EqPropTask.load_from_checkpoint(path, weights_only=True)
    x, _ = images(5, (1, 8, 8), seed=1, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(loaded(x), cli.model(x))
    assert describe(loaded.network) == describe(cli.model.network)
    assert EqPropTask.load_from_checkpoint(path, nudge="gradient", weights_only=True).nudge == "gradient"


def test_a_checkpoint_of_the_first_version_is_refused(tmp_path):
    path = train(EqPropTask(MLP((1, 8, 8), (6,))), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["optimizer_settings"], checkpoint["hyper_parameters"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"got one of 0\.1; train again with fklit 0\.2, or use fklit 0\.1"):
        EqPropTask.load_from_checkpoint(path, network=MLP((1, 8, 8), (6,)), weights_only=True)
