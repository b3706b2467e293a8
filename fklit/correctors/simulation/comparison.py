"""What a finished run is compared with, where the truth is no Gaussian mixture."""

from abc import ABC, abstractmethod

from torch import Tensor


class Comparison(ABC):
    """Figures of particles against a truth of their own; `SimulationTask` logs them.

    Attributes:
        names: Names of the figures.
    """

    names: tuple[str, ...]

    @abstractmethod
    def figures(self, points: Tensor, index: int) -> dict[str, float]:
        """Return a number for each name.

        Args:
            points: Particles of one group, drawn by their weights, (K, *event) on the CPU.
            index: The group's index, to seed what is random.
        """
