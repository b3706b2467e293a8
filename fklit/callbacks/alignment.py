"""Logs how well equilibrium propagation aligns with backpropagation, while a network trains and afterwards."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fklit.eqprop.analysis.alignment import error_vectors, symmetry_score, weight_angles
from fklit.eqprop.learning.responses import Estimator
from fklit.eqprop.network.state import State
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.training.task import EqPropTask
from fklit.metrics.alignment import Alignment


class AlignmentCallback(Callback):
    """Measures alignment on validation and test batches of an `fklit.eqprop.EqPropTask`.

    Logs `alignment/error/<layer>` and `alignment/gradient/<weight>` (cosines with recurrent backpropagation, on samples
    that have converged), `alignment/usable` (their share), `alignment/symmetry` (1 symmetric, 0.5 random) and
    `alignment/angle/<link>` in degrees; in a test all below `test/`.

    Args:
        every_n_epochs: Measure in every n-th epoch of training, and in the check before it.
        num_batches: Batches to use, from the first.
        estimator: Of the error vectors; None for the network's own (the exact response for networks trained by
            recurrent backpropagation).
        symmetry_samples: Samples of the first batch behind the symmetry score.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        num_batches: int = 1,
        *,
        estimator: Estimator | None = None,
        symmetry_samples: int = 4,
    ) -> None:
        if min(every_n_epochs, num_batches, symmetry_samples) < 1:
            raise ValueError(
                "expected every_n_epochs, num_batches and symmetry_samples of at least 1, got "
                f"every_n_epochs={every_n_epochs}, num_batches={num_batches}, symmetry_samples={symmetry_samples}."
            )
        self.every_n_epochs, self.num_batches, self.estimator = every_n_epochs, num_batches, estimator
        self.symmetry_samples = symmetry_samples
        self._metric: Alignment | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses other tasks.

        Raises:
            TypeError: If the module is not an `EqPropTask`.
        """
        if not isinstance(pl_module, EqPropTask):
            raise TypeError(
                f"expected an EqPropTask for AlignmentCallback, got {type(pl_module).__name__}; leave the callback out."
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a new measurement."""
        self._metric = None

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measures a batch."""
        if batch_idx < self.num_batches and trainer.current_epoch % self.every_n_epochs == 0:
            self._measure(pl_module, batch, batch_idx, "")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measures a batch."""
        if batch_idx < self.num_batches:
            self._measure(pl_module, batch, batch_idx, "test/")

    def _measure(self, task: EqPropTask, batch: Any, batch_idx: int, prefix: str) -> None:
        network = task.network
        with torch.inference_mode(False), torch.no_grad():  # derivatives are needed, of tensors that allow them
            x, y = batch["x"].clone(), batch["y"].clone()
            equilibrium = network.free_equilibrium(x)
            cotangents = _cotangents(task, equilibrium, y)
            vectors = error_vectors(network, equilibrium, cotangents, estimator=self.estimator)
            if self._metric is None:
                weights = {name: gradient.numel() for name, gradient in vectors.gradients.items()}
                self._metric = Alignment(network.names, weights).to(x.device)
            self._metric.update(
                vectors.error,
                vectors.reference,
                usable=vectors.usable,
                gradients=vectors.gradients,
                reference_gradients=vectors.reference_gradients,
            )
            task.log(f"{prefix}alignment/usable", vectors.usable.float().mean(), batch_size=len(x), sync_dist=True)
            if batch_idx == 0:
                score = symmetry_score(network, equilibrium, samples=self.symmetry_samples)
                task.log(f"{prefix}alignment/symmetry", score, batch_size=len(x), sync_dist=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the cosines and the weight angles."""
        self._log(pl_module, "")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the cosines and the weight angles."""
        self._log(pl_module, "test/")

    def _log(self, task: Any, prefix: str) -> None:
        if self._metric is None:
            return
        cosines = self._metric.compute()  # the same on every process
        task.log_dict(
            {f"{prefix}alignment/{name}": value.float() for name, value in cosines.items()}, rank_zero_only=False
        )
        angles = weight_angles(task.network)
        task.log_dict({f"{prefix}alignment/angle/{name}": value for name, value in angles.items()})


def _cotangents(task: EqPropTask, equilibrium: Equilibrium, y: torch.Tensor) -> State:
    """Derivative of each sample's loss with respect to the activities."""
    with torch.enable_grad():
        state = [part.detach().requires_grad_() for part in equilibrium.state]
        losses = task.sample_losses(task.network.read(tuple(state)), y)
        found = torch.autograd.grad(losses.sum(), state, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g for s, g in zip(state, found, strict=True))
