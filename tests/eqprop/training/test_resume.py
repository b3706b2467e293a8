"""A killed run goes on to the same bits, and what a checkpoint would override in silence is refused."""

import math
import random

import pytest
import torch
from equilibria import mlp
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fklit.callbacks.alignment import AlignmentCallback
from fklit.data import DigitsDataModule
from fklit.eqprop.learning.homeostasis import Homeostasis
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.eqprop.training.optimizers import OptimizerSettings
from fklit.eqprop.training.task import EqPropTask

# Lightning's remarks on the folders of checkpoints and the callbacks, which these tests change on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:The dirpath"),
]


class Kill(Callback):
    """Ends the run as a signal would: nothing is saved, no hook of the end is called."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


class Killed(Exception):
    pass


def task(seed=0, weight=1.0, **optimizer):
    network = mlp(
        inputs=64, hidden=(12, 12), dtype=torch.float32, seed=seed, gain=1.0, free=Relaxation(max_iterations=30)
    )
    network.input_shape = (1, 8, 8)
    settings = {"name": "adam", "learning_rate": 5e-3, "schedule": "cosine"} | optimizer
    loss = Homeostasis(probes=2, weight=weight, warmup_steps=5)
    return EqPropTask(network, homeostasis=loss, optimizer=OptimizerSettings(**settings))


def fit(module, folder, *, callbacks=(), epochs=2, **more):
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        log_every_n_steps=1,  # callbacks see the values of every step
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver, AlignmentCallback(), *callbacks],
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=DigitsDataModule(batch_size=10, num_train=80, num_test=20), **more)
    return trainer


def state(module):
    return {name: weight.clone() for name, weight in module.state_dict().items()}


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_in_the_same_bits(tmp_path):
    """Twenty runs of 16 steps in two epochs, each killed before a random step and resumed from its last checkpoint."""
    module = task()
    steps = fit(module, tmp_path / "whole").global_step
    assert steps == 16
    wanted = state(module)
    chance = random.Random(0)
    for run in range(20):
        step, folder = chance.randrange(1, steps), tmp_path / str(run)
        with pytest.raises(Killed):
            fit(task(), folder, callbacks=[Kill(step)])
        resumed = task(seed=99)  # other first weights: all must come from the file
        trainer = fit(resumed, folder, ckpt_path=folder / f"step={step}.ckpt", weights_only=True)
        assert trainer.global_step == steps
        for name, weight in state(resumed).items():
            assert torch.equal(weight, wanted[name]), (step, name)


def test_settings_that_a_checkpoint_would_override_are_refused(tmp_path):
    fit(task(), tmp_path, epochs=1)
    path = tmp_path / "step=3.ckpt"
    for change in ({"learning_rate": 1.0}, {"name": "sgd"}, {"weight_decay": 0.1}, {"rate_factors": {"readout": 2.0}}):
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=rf"expected optimizer\.{name}=.* as in the checkpoint") as refused:
            fit(task(**change), tmp_path, ckpt_path=path, weights_only=True)
        assert repr(value) in str(refused.value)
    tested = task(learning_rate=1.0)  # a test does not train
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        tested,
        datamodule=DigitsDataModule(batch_size=10, num_test=20),
        ckpt_path=path,
        weights_only=True,
        verbose=False,
    )


@pytest.mark.slow
def test_settings_that_a_checkpoint_does_not_hold_are_honored(tmp_path):
    """More epochs make the cosine longer; another homeostatic weight counts from the next step on."""
    fit(task(), tmp_path / "a", epochs=1)
    path = tmp_path / "a" / "step=8.ckpt"
    rates, weights = [], []

    class Spy(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            weights.append(float(trainer.callback_metrics["train/homeostasis_weight"]))

    fit(task(weight=7.0), tmp_path / "b", epochs=4, callbacks=[Spy()], ckpt_path=path, weights_only=True)
    assert weights == [7.0] * 24
    assert rates == pytest.approx([5e-3 * 0.5 * (1 + math.cos(math.pi * step / 32)) for step in range(9, 33)])
