"""Clusters of particles: energies, reference samples, an equivariant denoiser, and what runs are compared by."""

from fklit.molecules.clusters.data import ClusterDataModule
from fklit.molecules.clusters.denoiser import ClusterDenoiser
from fklit.molecules.clusters.energy import ClusterEnergy, HarmonicCluster, LennardJones
from fklit.molecules.clusters.figures import ClusterComparison, cluster_distances, radial_distribution
from fklit.molecules.clusters.langevin import LangevinPolish
from fklit.molecules.clusters.mean_free import MeanFreeSpace, mean_free_basis
from fklit.molecules.clusters.parallel_tempering import TemperedSamples, parallel_tempering
from fklit.molecules.clusters.quench import Quenched, occupation, occupation_distance, quench
from fklit.molecules.clusters.reference import ClusterReference
from fklit.molecules.clusters.samples import ClusterSamples
from fklit.molecules.clusters.simulated import SimulatedSamples

__all__ = [
    "ClusterComparison",
    "ClusterDataModule",
    "ClusterDenoiser",
    "ClusterEnergy",
    "ClusterReference",
    "ClusterSamples",
    "HarmonicCluster",
    "LangevinPolish",
    "LennardJones",
    "MeanFreeSpace",
    "Quenched",
    "SimulatedSamples",
    "TemperedSamples",
    "cluster_distances",
    "mean_free_basis",
    "occupation",
    "occupation_distance",
    "parallel_tempering",
    "quench",
    "radial_distribution",
]
