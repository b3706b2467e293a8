"""The mean of a number over prompts, each prompt counted once."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric


class PromptMean(Metric):
    """Mean over different prompts of one number a prompt.

    Distributed samplers repeat items until every process has as many; a prompt that was seen more than once counts
    once here, on however many processes. Finite values are averaged; NaN if there is none.
    """

    full_state_update = False
    higher_is_better = None
    indices: list[Tensor]
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("indices", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, indices: Int64[Tensor, " B"], values: Float[Tensor, " B"]) -> None:
        """Adds B prompts.

        Args:
            indices: The prompts' indices in their data set.
            values: Their numbers; kept as float64.

        Raises:
            ValueError: The shapes differ or are not (B,).
        """
        if indices.shape != values.shape or indices.ndim != 1:
            raise ValueError(
                f"expected indices and values as (B,), got {tuple(indices.shape)}, {tuple(values.shape)}; give both so."
            )
        self.indices.append(indices.detach().to(self.device, torch.int64))
        self.values.append(values.detach().to(self.device, torch.float64))

    def compute(self) -> Tensor:
        """The mean, a float64 scalar."""
        by_prompt = dict(zip(joined(self.indices).tolist(), joined(self.values).tolist(), strict=True))
        values = torch.tensor([by_prompt[index] for index in sorted(by_prompt)], dtype=torch.float64)
        return values[values.isfinite()].mean()


def joined(parts: list[Tensor] | Tensor) -> Tensor:
    """A state of torchmetrics that is a list of tensors, as one tensor, which it is after processes exchanged it."""
    if isinstance(parts, Tensor):
        return parts
    return torch.cat(parts) if parts else torch.zeros(0)
