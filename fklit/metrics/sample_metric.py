"""What metrics of samples share: what they need of a run, which is checked before it starts."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric

from fklit.metrics.samples import SampleBatch
from fklit.rewards.base import Reward


class SampleMetric(Metric, ABC):
    """A metric whose `update(samples, batch)` gets all samples (B, K, ...) of B prompts and a `SampleBatch`.

    Batches may be empty (B = 0): those of a process that has nothing to do.

    Attributes:
        needs_prompts: Whether it reads the prompts.
        needs_images: Whether it reads the samples as images; False for metrics of the particles alone.
        accepts: What samples it takes, as `Reward.accepts`; "any" leaves the check to its reward or to `update`.
    """

    full_state_update = False
    is_differentiable = False
    needs_prompts: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    accepts: ClassVar[str] = "any"

    @abstractmethod
    def update(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> None:
        """Adds all samples of B prompts."""

    @property
    def reward(self) -> Reward | None:
        """The reward by which samples are measured, so that it can be told from the one that guides; None for none."""
        return None

    def load(self) -> None:  # noqa: B027  (an optional hook)
        """Loads the weights, so that what is wrong with them shows before anything is sampled."""

    def check_run(self, name: str, *, num_prompts: int | None, num_particles: int | None) -> None:  # noqa: B027
        """Refuses a run whose end this metric could not say anything about.

        Args:
            name: How the user calls the metric.
            num_prompts: Prompts of the run, on all processes; None if unknown.
            num_particles: K; None if unknown.

        Raises:
            ValueError: There are too few of either.
        """

    def train(self, mode: bool = True) -> "SampleMetric":
        """Does nothing but report back: networks within a metric stay in evaluation mode."""
        return nn.Module.train(self, False)
