"""The molecules of MOSES (Polykovskiy et al. 2020, arXiv:1811.12823) out of the wheel of its package on PyPI.

`python -m fklit.data fetch moses` downloads the wheel of `molsets` (52 MB, MIT license) and reads its tables; nothing
of it is installed or imported. It encodes a fixed random choice of molecules as SELFIES and measures them by RDKit,
2 ms of a core each: ten minutes for the default, which goes on where it was stopped.
"""

import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fklit.data.checksums import Finding, compare
from fklit.molecules.strings.files import SUMMARY, write_molecules
from fklit.rewards.molecule_properties import FIX, PROPERTIES, rdkit_module
from fklit.rewards.optional import import_optional
from fklit.wheels import Wheel, fetch_wheel

WHEEL = Wheel(
    "molsets",
    "0.3.1",
    "molsets-0.3.1-py3-none-any.whl",
    "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34",
)
TABLES = {"train": "moses/dataset/data/train.csv.gz", "held_out": "moses/dataset/data/test.csv.gz"}
MOLECULES, HELD_OUT = 300_000, 10_000


def fetch_moses(data_dir: str | Path = "data/moses", *, molecules: int = MOLECULES, held_out: int = HELD_OUT) -> None:
    """Fetch the wheel, unless it is there, and write the data set that `MoleculeDataModule` reads.

    Args:
        data_dir: Where to.
        molecules: How many of the 1,584,663 to train on; a larger choice begins with a smaller one.
        held_out: How many of the 176,074 of MOSES' test set to validate on.

    Raises:
        RuntimeError: pip is missing or failed.
        ImportError: rdkit or selfies is not installed.
        ValueError: The wheel is not the pinned one, or has fewer molecules.
    """
    import_optional("selfies", owner="fetch moses", fix=FIX)
    rdkit_module("Chem", owner="fetch moses")
    root = Path(data_dir)
    archive = fetch_wheel(WHEEL, root)
    train = choose(read_table(archive, TABLES["train"]), molecules, name="molecules")
    validation = choose(read_table(archive, TABLES["held_out"]), held_out, name="held_out")
    summary = write_molecules(train, validation, root, properties=tuple(PROPERTIES))
    print(f"{SUMMARY}: {', '.join(f'{split} {summary[split]}' for split in TABLES)}")


def read_table(archive: Path, name: str) -> list[str]:
    """The SMILES of one table of the wheel.

    Args:
        archive: The wheel.
        name: Path of the table in it, a gzipped CSV file.
    """
    with zipfile.ZipFile(archive) as wheel:
        lines = gzip.decompress(wheel.read(name)).decode("ascii").splitlines()
    return [line.split(",")[0] for line in lines[1:]]


def choose(smiles: list[str], number: int, *, name: str) -> list[str]:
    """The first `number` of a fixed random order.

    Args:
        smiles: All molecules.
        number: How many.
        name: Of the number, for messages.

    Raises:
        ValueError: There are fewer.
    """
    if not 1 <= number <= len(smiles):
        raise ValueError(f"expected {name} from 1 to {len(smiles)}, got {number}; give a number in that range.")
    order = torch.randperm(len(smiles), generator=torch.Generator().manual_seed(0))[:number]
    return [smiles[row] for row in order.tolist()]


def verify_moses(data_dir: Path) -> Iterator[Finding]:
    """Compares the wheel with its pinned checksum.

    Args:
        data_dir: Where `fetch_moses` put it.
    """
    yield from compare(data_dir, {WHEEL.name: WHEEL.sha256}, "sha256")
