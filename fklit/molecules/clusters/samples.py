"""What samples of a cluster are made of, wherever they come from."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from fklit.molecules.clusters.energy import ClusterEnergy


class ClusterSamples(ABC):
    """Samples of a cluster at one or more temperatures, to train on with `ClusterDataModule`.

    Subclasses set both attributes.

    Attributes:
        system: The energy.
        temperatures: Rising.
    """

    system: ClusterEnergy
    temperatures: tuple[float, ...]

    @abstractmethod
    def at(self, temperature: float) -> Float[Tensor, "n d"]:
        """Return all samples of a temperature, float32 mean-free coordinates.

        Args:
            temperature: one of `temperatures`.

        Raises:
            ValueError: for any other.
        """

    @abstractmethod
    def make(self) -> None:
        """Make what `at` returns and keep it, unless that has been done."""
