"""Distances between samples of a cluster and its reference: energies, pair distances, inherent structures."""

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.correctors.simulation.comparison import Comparison
from fklit.metrics.distributions import wasserstein_line
from fklit.molecules.clusters.energy import ClusterEnergy
from fklit.molecules.clusters.mean_free import MeanFreeSpace
from fklit.molecules.clusters.parallel_tempering import index_of
from fklit.molecules.clusters.quench import occupation, occupation_distance, quench
from fklit.molecules.clusters.reference import ClusterReference


def cluster_distances(
    system: ClusterEnergy, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, modes: bool = False
) -> dict[str, float]:
    """Return how far two sets of samples are apart.

    Args:
        system: the energy.
        x: (n, d).
        y: (m, d).
        modes: whether to quench both sets, which costs some thousand energies of each sample.

    Returns:
        `energy_w1` and `energy_w2` between the laws of the energies, `distance_w2` between those of all pair distances
        (both W2 are roots), `mean_energy` of x, and with `modes` the total variation `mode_tv` of the inherent
        structures.
    """
    energies = [system.energy(points.double()) for points in (x, y)]
    distances = [system.space.pair_distances(points.double()).flatten() for points in (x, y)]
    found = dict(zip(("energy_w1", "energy_w2"), wasserstein_line(*energies), strict=True))
    found["distance_w2"] = wasserstein_line(*distances)[1]
    found["mean_energy"] = float(energies[0].mean())
    if modes:
        first, second = (occupation(quench(system, points).energy) for points in (x, y))
        found["mode_tv"] = occupation_distance(first, second)
    return found


def radial_distribution(
    space: MeanFreeSpace, x: Float[Tensor, "n d"], *, bins: int = 100, highest: float = 4.0
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the density of pair distances: middles of the bins (bins,), and densities (bins,), float64.

    A cluster has no volume to compare with an ideal gas's, so this is the density itself; its integral is the share of
    pairs closer than `highest`.

    Args:
        space: the coordinates.
        x: samples (n, d).
        bins: number of bins from 0 to `highest`.
        highest: in units of length.

    Raises:
        ValueError: for no samples.
    """
    distances = space.pair_distances(x.double()).flatten()
    if distances.numel() == 0 or bins < 1 or not highest > 0:
        raise ValueError(
            f"expected samples, at least one bin and a positive highest, got {distances.numel()} distances, {bins} and "
            f"{highest}; give some."
        )
    counts = torch.histc(distances, bins, 0.0, highest)
    width = highest / bins
    return (torch.arange(bins, dtype=torch.float64) + 0.5) * width, counts / (distances.numel() * width)


class ClusterComparison(Comparison):
    """Compares the particles of a run with reference samples of the same temperature.

    Logs `energy_w1`, `energy_w2`, `distance_w2` and `mean_energy` of `cluster_distances`; with `modes` also `mode_tv`.
    The floor of all of them is what as many reference samples have against the others; `cluster_distances` gives it.

    Args:
        reference: Where the samples come from.
        temperature: Of the target, one of the reference's.
        modes: Whether particles are quenched, and inherent structures compared.

    Raises:
        ValueError: For a temperature that the reference does not have.
    """

    def __init__(self, reference: ClusterReference, temperature: float, *, modes: bool = False) -> None:
        index_of(reference.temperatures, temperature)
        self.reference, self.temperature, self.modes = reference, temperature, modes
        self.names = ("energy_w1", "energy_w2", "distance_w2", "mean_energy", *(["mode_tv"] if modes else []))

    def figures(self, points: Tensor, index: int) -> dict[str, float]:
        """Return the figures of one group against the reference samples; quenched ones are drawn by its index."""
        truth = self.reference.at(self.temperature)
        # Energies and distances are cheap: all of the reference. Quenches are not: as many as there are points.
        found = cluster_distances(self.reference.system, points, truth)
        if self.modes:
            chosen = torch.randperm(len(truth), generator=torch.Generator().manual_seed(index))
            few = truth[chosen[: len(points)]]
            found["mode_tv"] = cluster_distances(self.reference.system, points, few, modes=True)["mode_tv"]
        return found
