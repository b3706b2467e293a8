"""Alignment of equilibrium propagation with backpropagation, as a metric."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor
from torchmetrics import Metric


class Alignment(Metric):
    """Cosines between two sets of error vectors, population by population, and between gradients, block by block.

    A single cosine of the flattened gradient hides that hidden layers get no useful signal, so there is none here.

    Args:
        populations: Names of the populations.
        blocks: Names of the weights.

    Returns:
        From ``compute``: ``error/<population>``, the mean cosine over samples, and ``gradient/<block>``, the cosine
        over all batches' gradients taken together; NaN where there was nothing to compare. All in [-1, 1].
    """

    full_state_update = False
    is_differentiable = False
    cosines: Tensor
    samples: Tensor
    products: Tensor

    def __init__(self, populations: Sequence[str], blocks: Sequence[str]) -> None:
        super().__init__()
        self.populations, self.blocks = tuple(populations), tuple(blocks)
        zeros = torch.zeros(len(self.populations), dtype=torch.float64)
        self.add_state("cosines", default=zeros, dist_reduce_fx="sum")
        self.add_state("samples", default=zeros.clone(), dist_reduce_fx="sum")
        self.add_state("products", default=torch.zeros(len(self.blocks), 3, dtype=torch.float64), dist_reduce_fx="sum")

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
            error: One tensor ``(samples, ...)`` a population.
            reference: The same.
            usable: Samples that count; one whose vector is zero in a population does not count there.
            gradients: By the names of the blocks; a block may be missing.
            reference_gradients: The same.

        Raises:
            ValueError: If there is not one error for each population.
        """
        if len(error) != len(self.populations) or len(reference) != len(self.populations):
            raise ValueError(
                f"{len(error)} and {len(reference)} error vectors were given for {len(self.populations)} populations; "
                "give one for each."
            )
        for i, (left, right) in enumerate(zip(error, reference, strict=True)):
            a, b = (F.normalize(part[usable].flatten(1).double(), dim=1, eps=1e-300) for part in (left, right))
            there = (a.abs().sum(1) > 0) & (b.abs().sum(1) > 0)
            self.cosines[i] += (a * b).sum(1)[there].sum()
            self.samples[i] += there.sum()
        for i, name in enumerate(self.blocks):
            if name in gradients and name in reference_gradients:
                a, b = gradients[name].double(), reference_gradients[name].double()
                self.products[i] += torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()])

    def compute(self) -> dict[str, Tensor]:
        """The cosines so far."""
        neurons = self.cosines / self.samples
        dot, a, b = self.products.unbind(1)
        gradients = dot / (a * b).sqrt()
        return {
            **{f"error/{name}": value for name, value in zip(self.populations, neurons, strict=True)},
            **{f"gradient/{name}": value for name, value in zip(self.blocks, gradients, strict=True)},
        }
