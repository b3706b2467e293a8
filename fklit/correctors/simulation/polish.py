"""What moves the particles of a finished run once more, under their target."""

from abc import ABC, abstractmethod

from torch import Tensor

from fklit.feynman_kac.randomness import Generators


class Polish(ABC):
    """A kernel that leaves the target of a run invariant, so that the weights stay right; `SimulationTask` takes it."""

    @abstractmethod
    def __call__(self, samples: Tensor, generator: Generators) -> Tensor:
        """Return moved samples.

        Args:
            samples: (B, K, *event).
            generator: One for each group.

        Returns:
            Samples of the same shape, dtype and device.
        """
