"""The baseline: backpropagation through the same network without its backward directions, in one pass."""

from typing import Literal

from torch import Tensor

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.network.feedforward import feedforward_pass
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State
from fklit.eqprop.training.batches import LabeledBatch, check_batch
from fklit.eqprop.training.optimizers import OptimizerSettings
from fklit.eqprop.training.task import EqPropTask


def feedforward(network: RecurrentNetwork, x: Tensor) -> State:
    """Activities of one pass through the layers in their order, differentiable by autograd; see `feedforward_pass`.

    Args:
        network: Whose weights and activations.
        x: Input, `(samples, *input_shape)`.
    """
    return feedforward_pass(network, network.drive(x))


class BackpropTask(EqPropTask):
    """Trains the feed-forward part of a network by backpropagation; the backward weights are frozen.

    Logs `train/loss`, `train/top1`, and for validation and test the loss, `top1` and `top5`. Alignment has no
    meaning here: leave the callback out.

    Args:
        network: Its layers are in the order of the pass.
        num_classes: As in `fklit.eqprop.EqPropTask`.
        loss: As in `fklit.eqprop.EqPropTask`.
        optimizer: As in `fklit.eqprop.EqPropTask`.

    Raises:
        ValueError: As in `fklit.eqprop.EqPropTask`.
    """

    def __init__(
        self,
        network: EquilibriumNetwork,
        num_classes: int = 10,
        *,
        loss: Literal["cross_entropy", "mse"] = "cross_entropy",
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(network, num_classes, loss=loss, optimizer=optimizer)
        for name, (pre, post) in network.ends.items():
            link = network.link(name)
            if link.backward_weight is not None:
                link.backward_weight.requires_grad_(False)
            if 0 <= post <= pre:
                link.requires_grad_(False)

    def training_step(self, batch: LabeledBatch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = check_batch(batch, self.num_classes)
        out = self(x)
        loss = self.sample_losses(out, y).mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/top1", (out.detach().argmax(1) == y).float().mean(), prog_bar=True)
        return loss

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or without a readout the output's activities, of one pass."""
        return self.network.read(feedforward(self.network, x)).flatten(1)

    def _evaluate(self, batch: LabeledBatch, stage: Literal["val", "test"]) -> Tensor:
        x, y = check_batch(batch, self.num_classes)
        out: Tensor = self(x)
        self._log_predictions(out, y, stage)
        return out
