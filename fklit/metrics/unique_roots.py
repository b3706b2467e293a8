"""How many initial particles have descendants at the end."""

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.samples import SampleBatch


class UniqueRoots(PromptMetric):
    """Mean over prompts of the number of initial particles, 1 to K, that have a living descendant at the end.

    One root means that all samples of a prompt share their beginning.

    Args:
        by: As in `PromptMetric`.
    """

    higher_is_better = True
    needs_images = False

    def __init__(self, *, by: str | None = None) -> None:
        super().__init__(by=by)

    def values(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> Float[Tensor, " b"]:
        """The roots of each prompt.

        Raises:
            ValueError: The samples are no particles.
        """
        if batch.result is None:
            raise ValueError("UniqueRoots expected the result of a method with particles, got none; leave it out.")
        roots: Tensor = batch.result.unique_roots
        return roots.to(torch.float64)
