"""What the task and the alignment callback log, against the same quantities computed here."""

import csv

import pytest
import torch
from equilibria import images, mlp
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from fklit.callbacks import AlignmentCallback
from fklit.eqprop import (
    EqPropTask,
    Homeostasis,
    Relaxation,
    RelaxationResult,
    error_vectors,
    symmetry_score,
    weight_angles,
)
from fklit.eqprop.training.metrics import relaxation_metrics
from fklit.metrics import Alignment


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


def test_alignment_in_every_other_epoch(tmp_path):
    seen = []

    class Spy(AlignmentCallback):
        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen.append(self._metric is not None)
            super().on_validation_epoch_end(trainer, pl_module)

    trainer(tmp_path, max_epochs=4, callbacks=[Spy(every_n_epochs=2)]).fit(EqPropTask(small()), loader(), loader())
    assert seen == [True, False, True, False]


def test_logged_quantities_of_a_relaxation():
    def true(count):
        return torch.arange(10) < count

    result = RelaxationResult(
        (),
        iterations=torch.arange(1, 11),
        residual=torch.tensor([*range(1, 10), torch.inf]),
        converged=~true(3),
        diverged=true(2),
        period_two=true(1),
    )
    assert {name: float(value) for name, value in relaxation_metrics(result).items()} == pytest.approx(
        {
            "train/residual_p50": 6.0,
            "train/residual_p90": torch.inf,
            "train/residual_max": torch.inf,
            "train/iterations_p50": 5.5,
            "train/iterations_p90": 9.1,
            "train/unconverged": 0.3,
            "train/period_two": 0.1,
            "train/diverged": 0.2,
        }
    )


def test_what_a_training_step_logs_and_returns():
    logged = {}
    network = small(free_phase=Relaxation(max_iterations=6, tolerance=1e-4, bound=0.97))
    loss = Homeostasis("squared", weight=3.0, warmup_steps=0, probes=2, seed=1)
    task = EqPropTask(network, homeostasis=loss)
    task.log = lambda name, value, **more: logged.update({name: float(value)})
    task.log_dict = lambda values: logged.update({name: float(value) for name, value in values.items()})
    batch = next(iter(loader()))
    batch["x"] = batch["x"] * torch.linspace(0.1, 30, 8)[:, None]
    total = task.training_step(batch, 0)
    equilibrium = network.free_equilibrium(batch["x"])
    diverged = equilibrium.result.diverged
    assert 0 < diverged.sum() < 8
    out = network.read(equilibrium.state).detach()
    each = torch.nn.functional.cross_entropy(out, batch["y"], reduction="none")
    assert logged["train/loss"] == pytest.approx(float(torch.where(diverged, 0.0, each).mean()))
    assert logged["train/top1"] == pytest.approx(float((out.argmax(1) == batch["y"]).float().mean()))
    extra = float(loss(network, equilibrium, sample_ids=list(range(8)), step=0).detach())
    assert logged["train/homeostasis"] == pytest.approx(extra) and logged["train/homeostasis_weight"] == 3.0
    assert float(total.detach()) == pytest.approx(logged["train/loss"] + 3 * extra)
    total.backward()
    (response,) = task._responses
    task.on_after_backward()
    (phases,) = response.results
    assert logged["train/nudge_residual_p50"] == float(phases.residual.median())
    assert logged["train/nudge_unconverged"] == float((~phases.converged).float().mean())
    assert logged["train/nudge_diverged"] == float(response.diverged.float().mean())
    assert task._responses == []


def logged_rows(folder, every):
    """Rows that a logger has of a run of two epochs of 5 steps, by step, and the last values that callbacks see."""
    logger = CSVLogger(folder, name=f"every{every}", version=0)
    run = trainer(folder, max_epochs=2, logger=logger, log_every_n_steps=every)
    torch.manual_seed(0)
    task = EqPropTask(small(), homeostasis=Homeostasis("squared", probes=1))
    run.fit(task, DataLoader(Samples(40), batch_size=8), loader())
    with open(folder / f"every{every}" / "version_0" / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file) if row["train/loss"]}
    return rows, {name: float(value) for name, value in run.callback_metrics.items()}


def test_loggers_get_the_same_at_their_steps_however_rare_these_are(tmp_path):
    every, always = logged_rows(tmp_path, 3), logged_rows(tmp_path, 1)
    assert sorted(always[0]) == list(range(10)) and sorted(every[0]) == [2, 5, 8]
    assert every[0] == {step: always[0][step] for step in (2, 5, 8)}
    assert all(every[0][2][name] for name in every[1] if name.startswith("train/"))
    assert every[1] == always[1] and {"train/homeostasis", "train/dropped", "train/iterations_p90"} <= set(every[1])


def test_the_last_step_of_a_run_that_ends_within_an_epoch_is_logged(tmp_path):
    run = trainer(tmp_path, max_epochs=None, max_steps=2)
    run.fit(EqPropTask(small()), loader(), loader())
    assert run.global_step == 2 and {"train/iterations_p90", "train/dropped"} <= set(run.callback_metrics)


def test_what_an_evaluation_logs(tmp_path):
    network = small(free_phase=Relaxation(max_iterations=5, tolerance=1e-4))
    (found,) = trainer(tmp_path).test(EqPropTask(network), loader(), verbose=False)
    x = torch.stack([Samples()[i]["x"] for i in range(24)])
    y = torch.arange(24) % 10
    equilibrium = network.free_equilibrium(x)
    unconverged = (~equilibrium.result.converged).float().mean()
    assert 0 < unconverged < 1 and found["test/unconverged"] == pytest.approx(float(unconverged))
    out = network.read(equilibrium.state).detach()
    assert found["test/loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(out, y)), rel=1e-5)
    best = out.topk(5, dim=1).indices == y[:, None]
    assert found["test/top1"] == pytest.approx(float(best[:, 0].float().mean()))
    assert found["test/top5"] == pytest.approx(float(best.any(1).float().mean()))


def test_alignment_of_the_first_batches(tmp_path):
    """What the callback logs is what its parts compute on these batches."""
    network = small()
    task = EqPropTask(network)
    run = trainer(tmp_path, callbacks=[AlignmentCallback(num_batches=2, symmetry_samples=3)])
    run.validate(task, loader(), verbose=False)
    metric, usable = None, []
    for k, batch in enumerate(loader()):
        if k == 2:
            break
        equilibrium = network.free_equilibrium(batch["x"])
        out = equilibrium.state[-1].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network.readout(out), batch["y"], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, out)
        cotangents = (*(torch.zeros_like(part) for part in equilibrium.state[:-1]), gradient)
        vectors = error_vectors(network, equilibrium, cotangents)
        if metric is None:
            metric = Alignment(network.names, {name: g.numel() for name, g in vectors.gradients.items()})
            symmetry = float(symmetry_score(network, equilibrium, samples=3))
        metric.update(
            vectors.error,
            vectors.reference,
            usable=vectors.usable,
            gradients=vectors.gradients,
            reference_gradients=vectors.reference_gradients,
        )
        usable.append(vectors.usable)
    got = {name: float(value) for name, value in run.callback_metrics.items()}
    wanted = {f"alignment/{name}": float(value) for name, value in metric.compute().items()}
    wanted |= {f"alignment/angle/{name}": value for name, value in weight_angles(network).items()}
    wanted |= {"alignment/symmetry": symmetry, "alignment/usable": float(torch.cat(usable).float().mean())}
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_the_progress_bar_shows_loss_and_accuracy(tmp_path):
    run = trainer(tmp_path)
    run.fit(EqPropTask(small()), train_dataloaders=loader(), val_dataloaders=loader())
    assert {"train/loss", "train/top1", "val/top1"} == set(run.progress_bar_metrics)
