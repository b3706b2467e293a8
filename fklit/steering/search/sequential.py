"""Sequential best-of-n: batches of samples until one is good enough."""

import math
from dataclasses import dataclass
from typing import ClassVar

from fklit.checks import as_number, check_count
from fklit.steering.search.search import Search


@dataclass(frozen=True, kw_only=True)
class SequentialBestOfN(Search):
    """Draws batches of `num_particles` samples of each prompt until a reward is above the threshold, at most `most`.

    Prompts that are done leave the batch. The stronger baseline of best-of-n: easy prompts cost one batch. It does not
    sample the target. The result holds, of each prompt, the batch with the best sample, and in `draws` how many samples
    were drawn.

    Attributes:
        threshold: a reward above it ends a prompt; finite, in units of the reward.
        most: n, samples of a prompt at most; a multiple of `num_particles`. At `num_particles` it is best-of-n.
    """

    threshold: float
    most: int = 16
    paper: ClassVar[str] = "best-of-n, batch by batch"

    def __post_init__(self) -> None:
        value = as_number(self.threshold)
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"expected threshold to be a finite number, got {self.threshold!r}; give one in units of the reward."
            )
        object.__setattr__(self, "threshold", float(value))
        object.__setattr__(self, "most", check_count("most", self.most))

    def check(self, num_particles: int) -> None:
        """Refuse a number of samples that is no multiple of the batch."""
        if self.most % num_particles != 0:
            raise ValueError(
                f"expected most to be a multiple of num_particles={num_particles}, which is the size of a batch, got "
                f"{self.most}; give {num_particles * max(1, self.most // num_particles)}."
            )
