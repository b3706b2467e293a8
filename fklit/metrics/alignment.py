"""Alignment of equilibrium propagation with backpropagation, as a metric."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor
from torchmetrics import Metric


class Alignment(Metric):
    """Cosines between two sets of error vectors, layer by layer, and between gradients, weight by weight.

    A single cosine of the flattened gradient hides that hidden layers get no useful signal, so there is none here.

    `compute` returns `error/<layer>`, the mean cosine over samples, and `gradient/<weight>`, the cosine of the
    gradients summed over all samples; NaN where there was nothing to compare. All are in [-1, 1], and the same however
    the samples were spread over batches and processes.

    Args:
        layers: Names of the layers.
        weights: Names of the weights, and how many numbers each has.
    """

    full_state_update = False
    is_differentiable = False
    cosines: Tensor
    samples: Tensor
    gradients: Tensor

    def __init__(self, layers: Sequence[str], weights: Mapping[str, int]) -> None:
        super().__init__()
        self.layers, self.weights = tuple(layers), dict(weights)
        zeros = torch.zeros(len(self.layers), dtype=torch.float64)
        self.add_state("cosines", default=zeros, dist_reduce_fx="sum")
        self.add_state("samples", default=zeros.clone(), dist_reduce_fx="sum")
        self.add_state("gradients", default=torch.zeros(2, sum(self.weights.values())), dist_reduce_fx="sum")

    def update(
        self,
        error: Sequence[Tensor],
        reference: Sequence[Tensor],
        *,
        usable: Bool[Tensor, " samples"],
        gradients: Mapping[str, Tensor],
        reference_gradients: Mapping[str, Tensor],
    ) -> None:
        """Add a batch.

        Args:
            error: One tensor `(samples, ...)` for each layer.
            reference: The same.
            usable: Samples that count; one whose vector is zero in a layer does not count there.
            gradients: Summed over the batch, by the names of the weights; one may be missing.
            reference_gradients: The same.

        Raises:
            ValueError: If there is not one error for each layer, or a gradient has another size than its weight.
        """
        if len(error) != len(self.layers) or len(reference) != len(self.layers):
            raise ValueError(
                f"expected one error vector for each of {len(self.layers)} layers, got {len(error)} and "
                f"{len(reference)}."
            )
        for i, (left, right) in enumerate(zip(error, reference, strict=True)):
            a, b = (F.normalize(part[usable].flatten(1).double(), dim=1, eps=1e-300) for part in (left, right))
            there = (a.abs().sum(1) > 0) & (b.abs().sum(1) > 0)
            self.cosines[i] += (a * b).sum(1)[there].sum()
            self.samples[i] += there.sum()
        sums = dict(zip(self.weights, torch.split(self.gradients, list(self.weights.values()), 1), strict=True))
        for name in sums.keys() & gradients.keys() & reference_gradients.keys():
            pair = torch.stack([gradients[name].flatten(), reference_gradients[name].flatten()])
            if pair.shape[1] != self.weights[name]:
                raise ValueError(f"expected a gradient of size {self.weights[name]} for {name}, got {pair.shape[1]}.")
            sums[name] += pair

    def compute(self) -> dict[str, Tensor]:
        """The cosines so far."""
        neurons = self.cosines / self.samples
        found = {f"error/{name}": value for name, value in zip(self.layers, neurons, strict=True)}
        for name, pair in zip(self.weights, torch.split(self.gradients, list(self.weights.values()), 1), strict=True):
            a, b = pair.double()
            found[f"gradient/{name}"] = (a @ b) / (a.norm() * b.norm())
        return found
