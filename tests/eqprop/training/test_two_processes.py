"""Two processes train as one does with the batches of both."""

import pytest
import torch
from equilibria import mlp
from lightning.pytorch import Callback, Trainer

from fklit.callbacks.alignment import AlignmentCallback
from fklit.data import DigitsDataModule
from fklit.eqprop.learning.homeostasis import Homeostasis
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.eqprop.training.optimizers import OptimizerSettings
from fklit.eqprop.training.task import EqPropTask


class Record(Callback):
    """Writes down every step's gradient, and what validation said."""

    def __init__(self, path):
        self.path, self.gradients = path, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(torch.cat([weight.grad.flatten().clone() for weight in pl_module.parameters()]))

    def on_fit_end(self, trainer, pl_module):
        if trainer.global_rank == 0:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            torch.save({"gradients": torch.stack(self.gradients), "metrics": values}, self.path)


def run(path, processes):
    network = mlp(inputs=64, hidden=(24, 24), gain=1.0, dtype=torch.float32, free=Relaxation(max_iterations=75))
    network.input_shape = (1, 8, 8)
    task = EqPropTask(
        network,
        homeostasis=Homeostasis(probes=2),
        optimizer=OptimizerSettings("sgd", learning_rate=0.05, schedule="cosine"),
    )
    Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp_spawn" if processes > 1 else "auto",
        max_epochs=1,
        limit_train_batches=10,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=5.0,
        callbacks=[Record(path), AlignmentCallback()],
    ).fit(task, datamodule=DigitsDataModule(batch_size=32 // processes, num_test=64))
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no_grad.*:UserWarning")
def test_two_gloo_processes_equal_one(tmp_path):
    one, two = run(tmp_path / "one.pt", 1), run(tmp_path / "two.pt", 2)
    assert len(one["gradients"]) == len(two["gradients"]) == 10
    difference = (one["gradients"] - two["gradients"]).abs().amax(1)
    assert (difference <= 1e-6).all(), difference
    for name in ("val/loss", "val/top1", "val/top5"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-6)
    # one batch of 32 against two of 16: the same samples in both
    for name in ("alignment/error/l1", "alignment/gradient/links.l1-l2.forward_weight", "alignment/usable"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-4), name
