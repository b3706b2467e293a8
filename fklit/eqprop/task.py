"""Training by equilibrium propagation under Lightning."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from fklit.eqprop.dynamics import Settled
from fklit.eqprop.homeostasis import Homeostasis
from fklit.eqprop.networks import EquilibriumNetwork
from fklit.eqprop.nudges import CrossEntropyNudge, MSENudge, Nudge
from fklit.eqprop.optimizers import OptimizerSettings, build_optimizer, cosine
from fklit.eqprop.responses import Response


class LabeledBatch(TypedDict):
    """Inputs, classes from 0, and a number that stays with each sample."""

    x: Tensor
    y: Tensor
    index: Tensor


def check_batch(batch: LabeledBatch, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return ``x`` and ``y`` of a batch.

    Raises:
        TypeError: If the batch is no dictionary with ``x``, ``y`` and ``index``, or the labels are no whole numbers.
        ValueError: If there is not one label for each sample, or one is out of range.
    """
    given = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
    if not isinstance(batch, Mapping) or not {"x", "y", "index"} <= set(batch):
        raise TypeError(f"A batch with {given} was given; it must be a dictionary with 'x', 'y' and 'index'.")
    x, y = batch["x"], batch["y"]
    if y.is_floating_point() or y.dim() != 1 or len(y) != len(x):
        raise (TypeError if y.is_floating_point() else ValueError)(
            f"Labels of type {y.dtype} and shape {tuple(y.shape)} were given for {len(x)} samples; give one class "
            "number for each."
        )
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(
            f"Labels from {int(y.min())} to {int(y.max())} were found; they must be from 0 to {num_classes - 1}: check "
            "the data or num_classes."
        )
    return x, y


class EqPropTask(LightningModule):
    """Trains a network by equilibrium propagation, with the homeostatic loss added if there is one.

    Batches are dictionaries with ``x``, ``y`` (classes from 0) and ``index`` (the sample's number, which seeds its
    probes). Logs ``train/loss``, ``train/top1``, ``train/homeostasis`` and its weight, quantiles of residual and
    sweeps, and the shares of unsettled, period-two and diverged samples, for the free phase and (``train/nudge_...``)
    the nudged ones; for validation and test the loss, ``top1``, the share of unsettled samples and, with more than
    five classes, ``top5``. ``predict`` gives classes and scores, which
    :class:`fklit.callbacks.classification_writer.ClassificationWriter` writes to a file.

    Diverged samples count in no gradient, nor do unsettled ones if the network's policy is ``"drop"``.

    Args:
        network: What is trained.
        num_classes: Of the labels; the network's readout, or without one its output population, has as many units.
        loss: ``"cross_entropy"`` of the readout, or ``"mse"``: half the squared distance of the output activities to
            the one-hot label, for networks without a readout.
        nudge: ``"gradient"`` nudges with the loss's gradient at the free state as a constant, scaled to norm 1 for each
            sample; ``"loss"`` with the gradient along the trajectory, as published.
        homeostasis: The homeostatic loss; None for none.
        optimizer: Optimizer, learning rates and schedule; None for Adam with 2e-3.

    Raises:
        ValueError: If the loss does not fit the network.
    """

    def __init__(
        self,
        network: EquilibriumNetwork,
        num_classes: int = 10,
        *,
        loss: Literal["cross_entropy", "mse"] = "cross_entropy",
        nudge: Literal["gradient", "loss"] = "gradient",
        homeostasis: Homeostasis | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__()
        if loss not in ("cross_entropy", "mse") or nudge not in ("gradient", "loss"):
            raise ValueError(
                f"loss={loss!r}, nudge={nudge!r} were given; the loss is 'cross_entropy' or 'mse', the nudge "
                "'gradient' or 'loss'."
            )
        if (loss == "cross_entropy") != (network.readout is not None):
            raise ValueError(
                f"loss={loss!r} was given; 'cross_entropy' needs a network with a readout (its num_classes), 'mse' one "
                "without."
            )
        out = network.populations[network.output]
        units = torch.Size(out.shape).numel() if network.readout is None else network.readout.out_features
        if units != num_classes:
            raise ValueError(
                f"num_classes={num_classes} was given for a network with {units} outputs; make them equal."
            )
        self.network, self.num_classes, self.loss, self.nudge = network, num_classes, loss, nudge
        self.homeostasis = homeostasis
        self.optimizer = OptimizerSettings() if optimizer is None else optimizer
        kinds = {"top1": 1} | ({"top5": 5} if num_classes > 5 else {})
        self.accuracies = torch.nn.ModuleDict(
            {
                f"{stage}_{name}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
                for stage in ("val", "test")
                for name, k in kinds.items()
            }
        )
        self._responses: list[Response] = []

    def sample_losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample from the network's output, ``(samples,)``."""
        if self.loss == "cross_entropy":
            return F.cross_entropy(out, y, reduction="none")
        target = F.one_hot(y, self.num_classes).to(out.dtype)
        return 0.5 * (out.flatten(1) - target).square().sum(1)

    def make_nudge(self, y: Tensor) -> Nudge | None:
        """The live nudge for labels, or None for a constant one."""
        if self.nudge == "gradient":
            return None
        if self.loss == "cross_entropy":
            return CrossEntropyNudge(y, self.num_classes)
        return MSENudge(F.one_hot(y, self.num_classes))

    def training_step(self, batch: LabeledBatch, batch_idx: int) -> Tensor:
        """The loss of a batch; its backward pass runs the nudged phases."""
        x, y = check_batch(batch, self.num_classes)
        network = self.network
        equilibrium = network.free_equilibrium(x)
        report = equilibrium.report
        self._responses = []
        out = network.read(network.attach(equilibrium, nudge=self.make_nudge(y), record=self._responses))
        used = ~report.diverged
        if network.unsettled == "drop":
            used = used & report.settled
        loss = torch.where(used, self.sample_losses(out, y), 0.0).mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/top1", (out.detach().flatten(1).argmax(1) == y).float().mean(), prog_bar=True)
        self.log_dict(_dynamics(report))
        if self.homeostasis is None:
            return loss
        weight = self.homeostasis.weight_at(self.global_step)
        ids = batch["index"].tolist()
        extra = self.homeostasis(network, equilibrium, sample_ids=ids, step=self.global_step)
        self.log_dict({"train/homeostasis": extra.detach(), "train/homeostasis_weight": weight})
        return loss + weight * extra

    def on_after_backward(self) -> None:
        """Logs how the nudged phases went."""
        if self._responses:
            response = self._responses[-1]
            residual = torch.cat([report.residual for report in response.reports])
            self.log("train/nudge_residual_p50", residual.median())
            unsettled = torch.cat([~report.settled for report in response.reports])
            self.log("train/nudge_unsettled", unsettled.float().mean())
            self.log("train/nudge_diverged", response.diverged.float().mean())
            self._responses = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or without a readout the output's activities, ``(samples, classes)``."""
        out: Tensor = self.network(x)
        return out.flatten(1)

    def predict_step(self, batch: LabeledBatch, batch_idx: int) -> dict[str, Tensor]:
        """What the network takes each sample for.

        Returns:
            ``index`` of each sample, its ``prediction``, the class with the highest score, int64 ``(samples,)``, and
            its ``scores``, ``(samples, classes)``: logits, or without a readout the output's activities.
        """
        scores = self(batch["x"])
        return {"index": batch["index"], "prediction": scores.argmax(1), "scores": scores}

    def validation_step(self, batch: LabeledBatch, batch_idx: int) -> None:
        """Logs ``val/loss``, ``val/top1`` and ``val/top5``."""
        self._evaluate(batch, "val")

    def test_step(self, batch: LabeledBatch, batch_idx: int) -> None:
        """Logs ``test/loss``, ``test/top1`` and ``test/top5``."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: LabeledBatch, stage: Literal["val", "test"]) -> None:
        x, y = check_batch(batch, self.num_classes)
        equilibrium = self.network.free_equilibrium(x)
        unsettled = (~equilibrium.report.settled).float().mean()
        self.log(f"{stage}/unsettled", unsettled, batch_size=len(x), sync_dist=True)
        self._log_predictions(self.network.read(equilibrium.state).flatten(1), y, stage)

    def _log_predictions(self, out: Tensor, y: Tensor, stage: Literal["val", "test"]) -> None:
        loss = self.sample_losses(out, y).mean()
        self.log(f"{stage}/loss", loss, batch_size=len(y), sync_dist=True)
        for name in ("top1", "top5"):
            key = f"{stage}_{name}"
            if key in self.accuracies:
                accuracy = self.accuracies[key]
                assert isinstance(accuracy, MulticlassAccuracy)
                accuracy.update(out, y)
                self.log(f"{stage}/{name}", accuracy, prog_bar=name == "top1", batch_size=len(y))

    def configure_optimizers(self) -> Any:
        """The optimizer, with a cosine over all steps of the run if asked for.

        Raises:
            ValueError: If there is to be a cosine in a run without an end.
        """
        optimizer = build_optimizer(self.network, self.optimizer)
        if self.optimizer.schedule == "constant":
            return optimizer
        trainer = self.trainer
        if trainer.max_epochs == -1 and trainer.max_steps == -1:
            raise ValueError("schedule='cosine' was given for a run without an end; give max_epochs or max_steps.")
        schedule = cosine(optimizer, lambda: int(trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes what the optimizer was made of."""
        checkpoint["optimizer_settings"] = self.optimizer.plain()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on training with other optimizer settings: the checkpoint's would win without a word.

        Everything else of a changed configuration (network options, homeostasis, epochs) is honored.

        Raises:
            ValueError: If they differ.
        """
        saved, now = checkpoint.get("optimizer_settings"), self.optimizer.plain()
        if saved is None or self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name in now:
            if saved.get(name) != now[name]:
                raise ValueError(
                    f"optimizer.{name}={now[name]!r} was given, but the checkpoint to go on from was trained with "
                    f"{saved.get(name)!r}, and its optimizer goes on as it was; give the same, or no ckpt_path."
                )


def _dynamics(report: Settled) -> dict[str, Tensor]:
    """What is logged of a free phase."""
    residual, steps = report.residual, report.steps.to(report.residual.dtype)
    middle, high = torch.tensor([0.5, 0.9], dtype=residual.dtype, device=residual.device)
    return {
        # "higher" picks one of the values: between a number and infinity, a weighted mean would be undefined
        "train/residual_p50": residual.quantile(middle, interpolation="higher"),
        "train/residual_p90": residual.quantile(high, interpolation="higher"),
        "train/residual_max": residual.max(),
        "train/sweeps_p50": steps.quantile(middle),
        "train/sweeps_p90": steps.quantile(high),
        "train/unsettled": (~report.settled).float().mean(),
        "train/period_two": report.period_two.float().mean(),
        "train/diverged": report.diverged.float().mean(),
    }
