"""Molecules as strings of SELFIES, and clusters of particles, for steering and correctors."""

from fklit.molecules.clusters import (
    ClusterComparison,
    ClusterDataModule,
    ClusterDenoiser,
    ClusterEnergy,
    ClusterReference,
    ClusterSamples,
    HarmonicCluster,
    LangevinPolish,
    LennardJones,
    MeanFreeSpace,
    Quenched,
    SimulatedSamples,
    TemperedSamples,
    cluster_distances,
    mean_free_basis,
    occupation,
    occupation_distance,
    parallel_tempering,
    quench,
    radial_distribution,
)
from fklit.molecules.strings.atom_counts import AtomCount
from fklit.molecules.strings.conditions import Conditions
from fklit.molecules.strings.data import MoleculeDataModule
from fklit.molecules.strings.drawing import draw_molecule
from fklit.molecules.strings.files import read_molecules, write_molecules
from fklit.molecules.strings.model import MoleculeModel
from fklit.molecules.strings.product import MoleculeResult, sample_product
from fklit.molecules.strings.source import MoleculeSource
from fklit.molecules.strings.symbol_chain import SymbolChain
from fklit.molecules.strings.vocabulary import MoleculeVocabulary

__all__ = [
    "AtomCount",
    "ClusterComparison",
    "ClusterDataModule",
    "ClusterDenoiser",
    "ClusterEnergy",
    "ClusterReference",
    "ClusterSamples",
    "Conditions",
    "HarmonicCluster",
    "LangevinPolish",
    "LennardJones",
    "MeanFreeSpace",
    "MoleculeDataModule",
    "MoleculeModel",
    "MoleculeResult",
    "MoleculeSource",
    "MoleculeVocabulary",
    "Quenched",
    "SimulatedSamples",
    "SymbolChain",
    "TemperedSamples",
    "cluster_distances",
    "draw_molecule",
    "mean_free_basis",
    "occupation",
    "occupation_distance",
    "parallel_tempering",
    "quench",
    "radial_distribution",
    "read_molecules",
    "sample_product",
    "write_molecules",
]
