"""Training by equilibrium propagation under Lightning."""

from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.homeostasis import Homeostasis
from fklit.eqprop.learning.nudges import CrossEntropyNudge, MSENudge, Nudge
from fklit.eqprop.learning.responses import Response
from fklit.eqprop.learning.unconverged import dropped_samples
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.training.batches import LabeledBatch, check_batch
from fklit.eqprop.training.metrics import relaxation_metrics
from fklit.eqprop.training.optimizers import OptimizerSettings, build_optimizer, cosine
from fklit.hyperparameters import save_hyperparameters
from fklit.renamed import OLD_CHECKPOINT_KEY


class EqPropTask(LightningModule):
    """Trains a network by equilibrium propagation, with the homeostatic loss added if there is one.

    Batches are dictionaries with `x`, `y` (classes from 0) and `index` (the sample's number, which seeds its
    probes). Logs `train/loss` and `train/top1` of every step, and at the steps that loggers write
    (`Trainer(log_every_n_steps=...)`) and the last of an epoch or run also `train/homeostasis` and its weight,
    quantiles of residual and iterations, and the shares of samples that have not converged (`train/unconverged`), are
    of period two or diverged, for the free phase and (`train/nudge_...`) the nudged ones; for validation and test the
    loss, `top1`, the share of unconverged samples and, with more than five classes, `top5`. `predict` returns classes
    and scores, which `fklit.callbacks.ClassificationWriter` writes to a file; `fklit.callbacks.MetricsCallback` adds
    other metrics of classes to validation and test.

    Diverged samples count in no gradient, nor do unconverged ones if the network's policy is `"drop"` (the default of
    estimators that linearize). `train/dropped` is the share of samples that the dynamics learned nothing from.
    `EqPropTask.load_from_checkpoint(path)` builds the network anew from the saved hyperparameters.

    Args:
        network: The network that is trained.
        num_classes: Of the labels; the network's readout, or without one its output layer, has as many units.
        loss: `"cross_entropy"` of the readout, or `"mse"`: half the squared distance of the output activities to
            the one-hot label, for networks without a readout.
        nudge: `"gradient"` nudges with the loss's gradient at the free state as a constant, scaled to norm 1 for each
            sample; `"loss"` with the gradient along the trajectory, as published.
        homeostasis: The homeostatic loss; None for none.
        optimizer: Optimizer, learning rates and schedule; None for Adam with 2e-3.

    Raises:
        ValueError: If the loss does not fit the network.
    """

    evaluates: ClassVar[str] = "classes"  # what the steps return, for MetricsCallback

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
        save_hyperparameters(self)
        if loss not in ("cross_entropy", "mse") or nudge not in ("gradient", "loss"):
            raise ValueError(
                f"expected loss 'cross_entropy' or 'mse' and nudge 'gradient' or 'loss', got loss={loss!r} and "
                f"nudge={nudge!r}."
            )
        if (loss == "cross_entropy") != (network.readout is not None):
            raise ValueError(
                "expected a network with a readout (its num_classes) for loss='cross_entropy' and one without for "
                f"loss='mse', got loss={loss!r} and {'no' if network.readout is None else 'a'} readout."
            )
        out = network.layers[network.output]
        units = torch.Size(out.shape).numel() if network.readout is None else network.readout.out_features
        if units != num_classes:
            raise ValueError(
                f"expected num_classes={units}, as the network has that many outputs, got num_classes={num_classes}."
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
        self._equilibrium: Equilibrium | None = None
        self._responses: list[Response] = []

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Build the task that a checkpoint holds, see `LightningModule.load_from_checkpoint`.

        Raises:
            ValueError: If the checkpoint is one of fklit 0.1.
        """
        saved = torch.load(checkpoint_path, map_location="cpu", weights_only=kwargs.get("weights_only", True))
        if OLD_CHECKPOINT_KEY in saved:
            raise ValueError(
                f"expected a checkpoint of fklit 0.2, got {checkpoint_path} of 0.1; train again with fklit 0.2, or use "
                "fklit 0.1."
            )
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def sample_losses(self, out: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample from the network's output, `(samples,)`."""
        if self.loss == "cross_entropy":
            return F.cross_entropy(out, y, reduction="none")
        target = F.one_hot(y, self.num_classes).to(out.dtype)
        return 0.5 * (out.flatten(1) - target).square().sum(1)

    def make_nudge(self, y: Tensor) -> Nudge | None:
        """The loss as a nudge along the trajectory, or None for a constant one."""
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
        result = equilibrium.result
        self._equilibrium, self._responses = equilibrium, []
        out = network.read(network.attach(equilibrium, nudge=self.make_nudge(y), record=self._responses))
        used = ~result.diverged
        if network.estimator.policy(network.unconverged) == "drop":
            used = used & result.converged
        loss = torch.where(used, self.sample_losses(out, y), 0.0).mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/top1", (out.detach().flatten(1).argmax(1) == y).float().mean(), prog_bar=True)
        details = self._logs_details()
        if details:
            self.log_dict(relaxation_metrics(result))
        if self.homeostasis is None:
            return loss
        weight = self.homeostasis.weight_at(self.global_step)
        ids = batch["index"].tolist()
        extra = self.homeostasis(network, equilibrium, sample_ids=ids, step=self.global_step)
        if details:
            self.log_dict({"train/homeostasis": extra.detach(), "train/homeostasis_weight": weight})
        return loss + weight * extra

    def _logs_details(self) -> bool:
        """Whether a logger or the end of an epoch or run sees this step; logging takes a sixth of small steps."""
        trainer = self._trainer
        if trainer is None:
            return True
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set from outside of the class
        done = self.global_step + 1
        return trainer.is_last_batch or done == trainer.max_steps or (every > 0 and done % every == 0)

    def on_fit_start(self) -> None:
        """Says that a mixed precision does not reach the dynamics."""
        precision = self.trainer.precision
        if precision in ("16-mixed", "bf16-mixed"):
            rank_zero_warn(
                f"expected precision '32-true' for equilibrium propagation, got {precision!r}, under which the "
                "dynamics run in float32 all the same, as the response to a finite nudge does not survive less; give "
                "'32-true', and execution.free_precision and execution.response_precision of the network for speed."
            )

    def on_after_backward(self) -> None:
        """Logs residuals and convergence of the nudged phases, and the share of samples that were dropped."""
        if self._equilibrium is not None and self._responses and self._logs_details():
            response, estimator = self._responses[-1], self.network.estimator
            policy = estimator.policy(self.network.unconverged)
            self.log("train/dropped", dropped_samples(self._equilibrium, response, estimator, policy).float().mean())
            residual = torch.cat([result.residual for result in response.results])
            self.log("train/nudge_residual_p50", residual.median())
            unconverged = torch.cat([~result.converged for result in response.results])
            self.log("train/nudge_unconverged", unconverged.float().mean())
            self.log("train/nudge_diverged", response.diverged.float().mean())
        self._equilibrium, self._responses = None, []

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or without a readout the output's activities, `(samples, classes)`."""
        out: Tensor = self.network(x)
        return out.flatten(1)

    def predict_step(self, batch: LabeledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Predicted class and scores of each sample.

        Returns:
            `index` of each sample, its `prediction`, the class with the highest score, int64 `(samples,)`, and
            its `scores`, `(samples, classes)`: logits, or without a readout the output's activities.
        """
        scores = self(batch["x"])
        return {"index": batch["index"], "prediction": scores.argmax(1), "scores": scores}

    def validation_step(self, batch: LabeledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Logs `val/loss`, `val/top1` and `val/top5`, and returns `index`, `scores` and `y` of each sample."""
        return {"index": batch["index"], "scores": self._evaluate(batch, "val"), "y": batch["y"]}

    def test_step(self, batch: LabeledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Logs `test/loss`, `test/top1` and `test/top5`, and returns `index`, `scores` and `y` of each sample."""
        return {"index": batch["index"], "scores": self._evaluate(batch, "test"), "y": batch["y"]}

    def _evaluate(self, batch: LabeledBatch, stage: Literal["val", "test"]) -> Tensor:
        x, y = check_batch(batch, self.num_classes)
        equilibrium = self.network.free_equilibrium(x)
        unconverged = (~equilibrium.result.converged).float().mean()
        self.log(f"{stage}/unconverged", unconverged, batch_size=len(x), sync_dist=True)
        out = self.network.read(equilibrium.state).flatten(1)
        self._log_predictions(out, y, stage)
        return out

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
            raise ValueError(
                "expected max_epochs or max_steps for schedule='cosine', got a run without an end; give one of them."
            )
        schedule = cosine(optimizer, lambda: int(trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the optimizer settings."""
        checkpoint["optimizer_settings"] = self.optimizer.plain()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to resume training with other optimizer settings: those of the checkpoint would be used silently.

        Everything else of a changed configuration (network options, homeostasis, epochs) is honored.

        Raises:
            ValueError: If they differ, or the checkpoint is one of fklit 0.1.
        """
        saved, now = checkpoint.get("optimizer_settings"), self.optimizer.plain()
        if saved is None:
            raise ValueError(
                "expected a checkpoint of fklit 0.2, got one of 0.1; train again with fklit 0.2, or use fklit 0.1."
            )
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name in now:
            if saved.get(name) != now[name]:
                raise ValueError(
                    f"expected optimizer.{name}={saved.get(name)!r} as in the checkpoint, whose optimizer is resumed, "
                    f"got {now[name]!r}; give the same, or no ckpt_path."
                )
