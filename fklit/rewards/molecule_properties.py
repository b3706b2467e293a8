"""Properties of molecules by RDKit, from their SMILES: what rewards, metrics and conditions are made of."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from fklit.rewards.optional import import_optional

FIX = "install the extra 'molecules' (`pip install 'fklit[molecules]'`)"


def rdkit_module(name: str, *, owner: str) -> Any:
    """A module of RDKit, such as "Chem".

    Args:
        name: Below `rdkit`.
        owner: Who asks, for messages.

    Raises:
        ImportError: RDKit is not installed.
    """
    return import_optional(f"rdkit.{name}", owner=owner, fix=FIX)


def parse_smiles(smiles: str) -> Any | None:
    """The molecule of a SMILES; None if it is none, or has no atoms. RDKit's complaints are not printed.

    Raises:
        ImportError: RDKit is not installed.
    """
    chem = rdkit_module("Chem", owner="parse_smiles")
    with rdkit_module("rdBase", owner="parse_smiles").BlockLogs():
        molecule = chem.MolFromSmiles(smiles)
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def canonical_smiles(smiles: str) -> str | None:
    """The canonical SMILES of RDKit, by which molecules are compared; None if it is no molecule."""
    molecule = parse_smiles(smiles)
    return None if molecule is None else str(rdkit_module("Chem", owner="canonical_smiles").MolToSmiles(molecule))


def _qed(molecule: Any) -> float:
    return float(rdkit_module("Chem.QED", owner="qed").qed(molecule))


def _sa(molecule: Any) -> float:
    return float(rdkit_module("Contrib.SA_Score.sascorer", owner="sa").calculateScore(molecule))


def _logp(molecule: Any) -> float:
    return float(rdkit_module("Chem.Crippen", owner="logp").MolLogP(molecule))


def _rings(molecule: Any) -> float:
    return float(rdkit_module("Chem.rdMolDescriptors", owner="rings").CalcNumRings(molecule))


def _heavy_atoms(molecule: Any) -> float:
    return float(molecule.GetNumHeavyAtoms())


def _count(molecule: Any, number: int) -> float:
    return float(sum(atom.GetAtomicNum() == number for atom in molecule.GetAtoms()))


def _nitrogens(molecule: Any) -> float:
    return _count(molecule, 7)


def _oxygens(molecule: Any) -> float:
    return _count(molecule, 8)


def _tpsa(molecule: Any) -> float:
    return float(rdkit_module("Chem.rdMolDescriptors", owner="tpsa").CalcTPSA(molecule))


PROPERTIES: Mapping[str, Callable[[Any], float]] = {
    "qed": _qed,
    "sa": _sa,
    "logp": _logp,
    "rings": _rings,
    "heavy_atoms": _heavy_atoms,
    "nitrogens": _nitrogens,
    "oxygens": _oxygens,
    "tpsa": _tpsa,
}
"""Property of a parsed molecule by name.

`qed` is the quantitative estimate of drug-likeness in [0, 1] (Bickerton et al. 2012), `sa` the synthetic accessibility
from 1 (easy) to 10 (Ertl and Schuffenhauer 2009), `logp` Crippen's octanol-water partition coefficient (Wildman and
Crippen 1999), then the numbers of rings, of atoms but hydrogen, of nitrogens and of oxygens, and `tpsa` the topological
polar surface area in square angstroms (Ertl et al. 2000).
"""


def check_properties(names: Sequence[str]) -> tuple[str, ...]:
    """Names of different properties, at least one.

    Raises:
        ValueError: One is unknown or comes twice, or there are none.
    """
    unknown = [name for name in names if name not in PROPERTIES]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(f"expected different properties among {', '.join(PROPERTIES)}, got {list(names)}; change it.")
    return tuple(names)


def measure(smiles: str, names: Sequence[str]) -> list[float] | None:
    """Properties of a molecule in the order of their names; None if the text is no molecule.

    Args:
        smiles: The molecule.
        names: Among `PROPERTIES`.
    """
    molecule = parse_smiles(smiles)
    return None if molecule is None else [PROPERTIES[name](molecule) for name in names]


@cache
def fingerprints() -> Any:
    """RDKit's generator of Morgan fingerprints of radius 2 and 2,048 bits (ECFP4)."""
    return rdkit_module("Chem.rdFingerprintGenerator", owner="fingerprints").GetMorganGenerator(radius=2, fpSize=2048)
