"""Losses as forces on the output population, evaluated along the nudged trajectory (the published, "live" nudge)."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop.softmax import softmax, split_softmax
from fklit.eqprop.state import halves, per_row

if TYPE_CHECKING:
    from fklit.eqprop.networks import EquilibriumNetwork


class Nudge(ABC):
    """A loss of each sample that pulls on the output activities.

    Args:
        target: What the output should be, samples first.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target

    @abstractmethod
    def force(self, network: "EquilibriumNetwork", out: Tensor, *, split: bool = False) -> Tensor:
        """Derivative of each sample's loss with respect to the output activities (real, complex or split).

        Args:
            network: Whose readout the loss sees.
            out: Activities of the output population.
            split: Whether ``out`` holds real and imaginary halves.
        """

    def repeated(self, times: int) -> "Nudge":
        """The same for ``times`` copies of the batch, one after another."""
        return type(self)(self.target.repeat(times, *[1] * (self.target.dim() - 1)))

    def select(self, samples: Tensor) -> "Nudge":
        """The same for some samples only."""
        return type(self)(self.target[samples])


class CrossEntropyNudge(Nudge):
    """Cross-entropy of the readout's softmax: ``R^T (softmax(R s + r) - y)``.

    Args:
        target: Labels ``(samples,)`` from 0, or probabilities ``(samples, classes)``.
        num_classes: Of labels; not needed for probabilities.

    Raises:
        ValueError: If labels come without ``num_classes``, or are out of range.
    """

    def __init__(self, target: Tensor, num_classes: int | None = None) -> None:
        if target.dim() == 1:
            if num_classes is None:
                raise ValueError("Labels were given without num_classes; give it, or probabilities (samples, classes).")
            if len(target) and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
                raise ValueError(
                    f"Labels from {int(target.min())} to {int(target.max())} were given; they must be from 0 to "
                    f"{num_classes - 1}."
                )
            target = F.one_hot(target, num_classes)
        super().__init__(target)

    def force(self, network: "EquilibriumNetwork", out: Tensor, *, split: bool = False) -> Tensor:
        """The force; see the base class."""
        readout = network.readout
        if readout is None:
            raise ValueError("The network has no readout for a cross-entropy; give it num_classes, or use MSENudge.")
        if self.target.shape[1:] != (readout.out_features,):
            raise ValueError(
                f"Targets with {self.target.shape[-1]} classes were given for a readout of {readout.out_features}; "
                "make them equal."
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
    """Half the squared distance of the output activities to the target: ``s - y``.

    Args:
        target: Wanted activities, shaped as the output population.
    """

    def force(self, network: "EquilibriumNetwork", out: Tensor, *, split: bool = False) -> Tensor:
        """The force; see the base class."""
        rows = len(out) // 2 if split else len(out)
        if self.target.numel() != out[:rows].numel():
            raise ValueError(
                f"A target of shape {tuple(self.target.shape)} was given for outputs of shape {tuple(out.shape[1:])} "
                f"of {rows} samples; make them equal."
            )
        target = self.target.to(out.dtype).view(rows, *out.shape[1:])
        if not split:
            return out - target
        real, imaginary = halves(out)
        return torch.cat([real - target, imaginary])


class LiveForce:
    """A nudge times one beta for each row, added to the output population's input at every update."""

    def __init__(self, network: "EquilibriumNetwork", nudge: Nudge, betas: Tensor, *, split: bool = False) -> None:
        self.network, self.nudge, self.betas, self.split = network, nudge, betas, split

    def __call__(self, out: Tensor) -> Tensor:
        """``beta dL/ds`` at these activities."""
        force = self.nudge.force(self.network, out, split=self.split)
        if not self.split:
            return per_row(self.betas, force) * force
        real, imaginary = halves(force)
        a, b = per_row(self.betas.real, real), per_row(self.betas.imag, real)
        return torch.cat([a * real - b * imaginary, a * imaginary + b * real])

    def select(self, samples: Tensor) -> "LiveForce":
        """The same for some rows only."""
        return LiveForce(self.network, self.nudge.select(samples), self.betas[samples], split=self.split)
