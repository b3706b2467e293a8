"""Losses as forces on the output layer, evaluated along the nudged trajectory as published."""

from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.softmax import softmax, split_softmax
from fklit.eqprop.network.state import halves, per_row


class Nudge(ABC):
    """A loss of each sample, whose gradient acts on the output layer.

    Args:
        target: What the output should be, samples first.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target

    @abstractmethod
    def force(self, network: RecurrentNetwork, out: Tensor, *, split: bool = False) -> Tensor:
        """Derivative of each sample's loss with respect to the output activities (real, complex or split).

        Args:
            network: Whose readout the loss sees.
            out: Activities of the output layer.
            split: Whether `out` holds real and imaginary halves.
        """

    def repeated(self, times: int) -> Self:
        """The same for `times` copies of the batch, one after another."""
        return type(self)(self.target.repeat(times, *[1] * (self.target.dim() - 1)))

    def select(self, samples: Tensor) -> Self:
        """The same for some samples only."""
        return type(self)(self.target[samples])


class CrossEntropyNudge(Nudge):
    """Cross-entropy of the readout's softmax: `R^T (softmax(R s + r) - y)`.

    Args:
        target: Labels `(samples,)` from 0, or probabilities `(samples, classes)`.
        num_classes: Of labels; not needed for probabilities.

    Raises:
        ValueError: If labels come without `num_classes`, or are out of range.
    """

    def __init__(self, target: Tensor, num_classes: int | None = None) -> None:
        if target.dim() == 1:
            if num_classes is None:
                raise ValueError(
                    "expected num_classes with labels, got none; give it, or probabilities (samples, classes)."
                )
            if len(target) and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
                raise ValueError(
                    f"expected labels from 0 to {num_classes - 1}, got labels from {int(target.min())} to "
                    f"{int(target.max())}."
                )
            target = F.one_hot(target, num_classes)
        super().__init__(target)

    def force(self, network: RecurrentNetwork, out: Tensor, *, split: bool = False) -> Tensor:
        """The force; see the base class.

        Raises:
            ValueError: If the target does not fit the network.
        """
        readout = network.readout
        if readout is None:
            raise ValueError(
                "expected a network with a readout for the cross-entropy, got one without; give it num_classes, or use "
                "MSENudge."
            )
        if self.target.shape[1:] != (readout.out_features,):
            raise ValueError(
                f"expected targets with the {readout.out_features} classes of the readout, got {self.target.shape[-1]}."
            )
        weight = readout.weight.detach().to(out.dtype)
        bias = readout.bias.detach().to(out.real.dtype)
        logits = F.linear(out.flatten(1), weight)
        target = self.target.to(logits.dtype)
        if split:
            real, imaginary = halves(logits)
            p, q = split_softmax(real + bias, imaginary)
            error = torch.cat([p - target, q])
        else:
            error = softmax(logits + bias) - target
        return (error @ weight).view(out.shape)


class MSENudge(Nudge):
    """Half the squared distance of the output activities to the target: `s - y`.

    Args:
        target: Wanted activities, shaped as the output layer.
    """

    def force(self, network: RecurrentNetwork, out: Tensor, *, split: bool = False) -> Tensor:
        """The force; see the base class.

        Raises:
            ValueError: If the target does not fit the network.
        """
        rows = len(out) // 2 if split else len(out)
        if self.target.numel() != out[:rows].numel():
            raise ValueError(
                f"expected a target for {rows} samples of shape {tuple(out.shape[1:])}, got one of shape "
                f"{tuple(self.target.shape)}."
            )
        target = self.target.to(out.dtype).view(rows, *out.shape[1:])
        if not split:
            return out - target
        real, imaginary = halves(out)
        return torch.cat([real - target, imaginary])


class NudgeForce:
    """A nudge times one beta for each row: what is added to the output layer's input at every update.

    Args:
        network: Whose readout the loss sees.
        nudge: The loss, with one target for each row.
        betas: One for each row, real or complex.
        split: Whether states are split into real and imaginary half.
    """

    def __init__(self, network: RecurrentNetwork, nudge: Nudge, betas: Tensor, *, split: bool = False) -> None:
        self.network, self.nudge, self.betas, self.split = network, nudge, betas, split

    def __call__(self, out: Tensor) -> Tensor:
        """`beta dL/ds` at these activities."""
        force = self.nudge.force(self.network, out, split=self.split)
        if not self.split:
            return per_row(self.betas, force) * force
        real, imaginary = halves(force)
        a, b = per_row(self.betas.real, real), per_row(self.betas.imag, real)
        return torch.cat([a * real - b * imaginary, a * imaginary + b * real])

    def select(self, samples: Tensor) -> Self:
        """The same for some rows only."""
        return type(self)(self.network, self.nudge.select(samples), self.betas[samples], split=self.split)
