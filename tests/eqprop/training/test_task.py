"""The Lightning task: it trains, logs, sets rates layer by layer, and measures alignment on the way."""

import contextlib
import math

import pytest
import torch
from equilibria import images, mlp
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from fklit.callbacks.alignment import AlignmentCallback
from fklit.eqprop.learning.homeostasis import Homeostasis
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.eqprop.training.batches import check_batch
from fklit.eqprop.training.optimizers import OptimizerSettings, build_optimizer
from fklit.eqprop.training.task import EqPropTask


class Samples(torch.utils.data.Dataset):
    def __init__(self, size=24):
        self.x, _ = images(size, (20,), dtype=torch.float32)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": i % 10, "index": i}


def small(*, free_phase=None, **more):
    free = Relaxation(max_iterations=40) if free_phase is None else free_phase
    return mlp(inputs=20, hidden=(16, 12), dtype=torch.float32, free=free, **more)


def trainer(tmp_path, **more):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu", devices=1, default_root_dir=tmp_path, enable_model_summary=False, **(options | more)
    )


def loader():
    return DataLoader(Samples(), batch_size=8)


@pytest.mark.parametrize("nudge", ["gradient", "loss"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_fit_with_everything(tmp_path, nudge, loss):
    network = small(num_classes=10 if loss == "cross_entropy" else None)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    task = EqPropTask(
        network,
        loss=loss,
        nudge=nudge,
        homeostasis=Homeostasis("squared", probes=1, warmup_steps=4),
        optimizer=OptimizerSettings(schedule="cosine"),
    )
    run = trainer(tmp_path, max_epochs=2, callbacks=[AlignmentCallback()], gradient_clip_val=1.0)
    run.fit(task, loader(), loader())
    got = {name: float(value) for name, value in run.callback_metrics.items()}
    names = "loss", "top1", "homeostasis", "residual_p50", "residual_p90", "iterations_p90", "unconverged", "diverged"
    for name in names:
        assert math.isfinite(got[f"train/{name}"]), name
    assert got["train/homeostasis_weight"] == 1.0 and got["train/nudge_diverged"] == 0.0
    assert 0 <= got["val/top1"] <= got["val/top5"] <= 1
    assert -1 <= got["alignment/error/l1"] <= 1 and 0 < got["alignment/usable"] <= 1
    assert 0.5 <= got["alignment/symmetry"] <= 1 and 0 <= got["alignment/angle/l1-l2"] <= 180
    assert -1 <= got["alignment/gradient/links.input-l1.forward_weight"] <= 1
    assert all(not torch.equal(weight, before[name]) for name, weight in network.named_parameters())
    assert run.optimizers[0].param_groups[0]["lr"] < 1e-6  # the cosine has come down
    (test,) = run.test(task, loader(), verbose=False)
    others = {name for name in test if not name.startswith("test/alignment/")}
    assert (
        others == {"test/loss", "test/top1", "test/top5", "test/unconverged"} and -1 <= test["test/alignment/error/l1"]
    )


def test_a_training_step_is_the_modules_own_gradient():
    network = small()
    task = EqPropTask(network)
    task.log = task.log_dict = lambda *a, **k: None
    batch = next(iter(loader()))
    task.training_step(batch, 0).backward()
    got = [weight.grad.clone() for weight in network.parameters()]
    network.zero_grad()
    torch.nn.functional.cross_entropy(network(batch["x"]), batch["y"]).backward()
    for a, b in zip(got, (weight.grad for weight in network.parameters()), strict=True):
        torch.testing.assert_close(a, b)


def test_dropped_samples_train_neither_dynamics_nor_readout():
    network = small(unconverged="drop")
    network.free = Relaxation(max_iterations=1, tolerance=1e-9)
    task = EqPropTask(network)
    task.log = task.log_dict = lambda *a, **k: None
    task.training_step(next(iter(loader())), 0).backward()
    assert not any(weight.grad.any() for weight in network.parameters())


def test_refused():
    with pytest.raises(ValueError, match="loss='hinge'"):
        EqPropTask(small(), loss="hinge")
    with pytest.raises(ValueError, match="got loss='cross_entropy' and no readout"):
        EqPropTask(small(num_classes=None))
    with pytest.raises(ValueError, match="expected num_classes=10"):
        EqPropTask(small(), num_classes=12)
    with pytest.raises(ValueError, match="expected labels from 0 to 9, got labels from 0 to 12"):
        EqPropTask(small()).training_step({"x": torch.zeros(2, 20), "y": torch.tensor([0, 12]), "index": None}, 0)
    for batch, message in (
        (
            (torch.zeros(2, 20), torch.tensor([0, 1])),
            "expected a batch as a dictionary .*, got tuple",
        ),
        ({"x": torch.zeros(2, 20), "y": torch.tensor([0, 1])}, r"got \['x', 'y'\]"),
        ({"x": torch.zeros(2, 20), "y": torch.rand(2), "index": None}, "got labels of type torch.float32"),
        (
            {"x": torch.zeros(2, 20), "y": torch.zeros(3, dtype=int), "index": None},
            r"each of 2 samples, .* \(3,\)",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            EqPropTask(small()).training_step(batch, 0)
    with pytest.raises(ValueError, match=r"got factors for \['l1'\]"):
        build_optimizer(small(), OptimizerSettings(rate_factors={"l1": 2.0}))
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        OptimizerSettings(momentum=1.0)
    with pytest.raises(ValueError, match="schedule='linear'"):
        OptimizerSettings(schedule="linear")
    with pytest.raises(ValueError, match="every_n_epochs=0"):
        AlignmentCallback(0)
    with pytest.raises(TypeError, match="expected an EqPropTask for AlignmentCallback, got LightningModule"):
        AlignmentCallback().setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_precisions(tmp_path, precision):
    """Mixed precision trains to the same weights: the dynamics stay in single. The others train."""
    weights = []
    for chosen in ("32-true", precision):
        task = EqPropTask(small(), nudge="loss", homeostasis=Homeostasis(probes=1))
        run = trainer(tmp_path, precision=chosen, gradient_clip_val=1.0, accumulate_grad_batches=2)
        mixed = pytest.warns(UserWarning, match="'bf16-mixed', under which the dynamics run in float32 all the same")
        with mixed if chosen == "bf16-mixed" else contextlib.nullcontext():
            run.fit(task, loader(), loader())
        weights.append(torch.cat([weight.detach().flatten().double() for weight in task.parameters()]))
    tolerance = {"bf16-mixed": 1e-5, "64-true": 1e-3, "bf16-true": 0.05}[precision]
    assert float((weights[0] - weights[1]).abs().max()) < tolerance


def test_predict(tmp_path):
    task = EqPropTask(small())
    batches = trainer(tmp_path).predict(task, loader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(24))
    x = torch.stack([Samples()[i]["x"] for i in range(24)])
    scores = torch.cat([batch["scores"] for batch in batches])
    torch.testing.assert_close(scores, task.network(x).detach())
    assert torch.equal(torch.cat([batch["prediction"] for batch in batches]), scores.argmax(1))


def test_a_cosine_needs_an_end(tmp_path):
    task = EqPropTask(small(), optimizer=OptimizerSettings(schedule="cosine"))
    with pytest.raises(ValueError, match="expected max_epochs or max_steps"):
        trainer(tmp_path, max_epochs=-1, limit_val_batches=0).fit(task, loader(), loader())
    trainer(tmp_path, max_epochs=-1, max_steps=1, limit_val_batches=0).fit(task, loader(), loader())


def test_labels_at_the_ends():
    x = torch.zeros(2, 20)
    for labels in ([0, 9], [9, 0]):
        check_batch({"x": x, "y": torch.tensor(labels), "index": None}, 10)
    check_batch({"x": x[:0], "y": torch.zeros(0, dtype=torch.long), "index": None}, 10)
    for labels in ([0, 10], [-1, 3]):
        with pytest.raises(ValueError, match="expected labels from 0 to 9"):
            check_batch({"x": x, "y": torch.tensor(labels), "index": None}, 10)
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        check_batch({"x": x, "y": torch.zeros(2, 1, dtype=torch.long), "index": None}, 10)


@pytest.mark.parametrize("num_classes", [5, 6])
def test_the_best_five_are_counted_for_more_than_five_classes(num_classes):
    task = EqPropTask(small(num_classes=num_classes), num_classes)
    assert ("val_top5" in task.accuracies) == ("test_top5" in task.accuracies) == (num_classes > 5)


def test_losses_of_samples():
    out, y = torch.tensor([[0.5, 0.25], [1.0, 0.0]]), torch.tensor([0, 1])
    task = EqPropTask(small(num_classes=None, num_outputs=2), 2, loss="mse")
    assert task.sample_losses(out, y).tolist() == [0.5 * (0.25 + 0.0625), 1.0]
    task = EqPropTask(small(num_classes=2), 2)
    torch.testing.assert_close(task.sample_losses(out, y), torch.nn.functional.cross_entropy(out, y, reduction="none"))
