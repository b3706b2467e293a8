"""Files of a data set of molecules: tokens, properties, SMILES and a tokenizer, made in pieces that are kept."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from fklit.atomic import make_folder, write_atomically, write_json_atomically, write_text_atomically
from fklit.molecules.strings.conditions import Conditions
from fklit.molecules.strings.symbols import to_symbols
from fklit.molecules.strings.vocabulary import MoleculeVocabulary, build_tokenizer
from fklit.rewards.molecule_properties import canonical_smiles, check_properties, measure

TOKENIZER, SUMMARY, PIECES = "tokenizer", "molecules.json", "pieces"
SPLITS = ("train", "held_out")
_PIECE = 5000  # molecules


@dataclass(frozen=True)
class MoleculeFile:
    """One split of a data set.

    Attributes:
        tokens: (n, max_symbols) uint8.
        properties: (n, p) float32.
        smiles: n canonical SMILES.
    """

    tokens: UInt8[Tensor, "n l"]
    properties: Float32[Tensor, "n p"]
    smiles: list[str]


def write_molecules(
    train: Sequence[str],
    held_out: Sequence[str],
    folder: str | Path,
    *,
    properties: Sequence[str] = ("qed", "sa", "logp", "rings", "heavy_atoms"),
    max_symbols: int = 48,
) -> dict[str, Any]:
    """Encode molecules, measure them, and write a data set for `MoleculeDataModule`.

    Properties take 2 ms a molecule. They are kept in pieces of 5,000 in the folder `pieces`, so that a stopped call
    goes on where it was, and a larger set takes over what it has in common with a smaller one in front.

    Args:
        train: SMILES to train on.
        held_out: SMILES to validate on.
        folder: Where to; the parts that are there are replaced.
        properties: What the model is conditioned on, in this order; see `PROPERTIES`.
        max_symbols: Most symbols of a molecule; longer ones are left out, and counted.

    Returns:
        The summary that `molecules.json` has, with numbers of molecules, how many were left out, edges and versions.

    Raises:
        ValueError: A text is no molecule, or an argument is out of its range.
        ImportError: rdkit or selfies is not installed.
    """
    names = check_properties(properties)
    if max_symbols < 1:
        raise ValueError(f"expected max_symbols of at least 1, got {max_symbols}; give an integer such as 48.")
    root = Path(folder)
    make_folder(root / PIECES)
    found = {split: _pieces(smiles, names, root) for split, smiles in zip(SPLITS, (train, held_out), strict=True)}
    fitting = [row for row in found["train"] if len(row["symbols"]) <= max_symbols]
    if not fitting:
        raise ValueError(f"expected training molecules of at most {max_symbols} symbols, got none; give others.")
    counts = Counter(symbol for row in fitting for symbol in row["symbols"])
    alphabet = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    conditions = Conditions.fitted(names, torch.tensor([row["properties"] for row in fitting]))
    tokenizer = build_tokenizer(alphabet, conditions, max_symbols=max_symbols)
    tokenizer.save_pretrained(root / TOKENIZER)
    vocabulary = MoleculeVocabulary(tokenizer)
    summary: dict[str, Any] = {"properties": list(names), "edges": {k: list(v) for k, v in conditions.edges.items()}}
    summary |= {"max_symbols": max_symbols, "tokens": len(tokenizer), "versions": _versions()}
    for split, rows in found.items():
        encoded = [(row, vocabulary.encode(row["symbols"])) for row in rows]
        kept = [(row, tokens) for row, tokens in encoded if tokens is not None]
        _write_split(root, split, kept, len(names), max_symbols)
        too_long = sum(len(row["symbols"]) > max_symbols for row in rows)
        summary[split] = {
            "molecules": len(kept),
            "left_out_longer": too_long,
            "left_out_unknown_symbols": len(rows) - len(kept) - too_long,
        }
    write_json_atomically(root / SUMMARY, summary, indent=1)
    return summary


def read_molecules(folder: str | Path, split: str) -> MoleculeFile:
    """One split of a data set.

    Args:
        folder: Where `write_molecules` wrote.
        split: "train" or "held_out".

    Raises:
        FileNotFoundError: There is none.
        ValueError: Its files do not belong together.
    """
    from safetensors.torch import load_file

    root = Path(folder)
    for path in (root / f"{split}.safetensors", root / f"{split}.smi", root / SUMMARY):
        if not path.is_file():
            raise FileNotFoundError(
                f"expected {path}, got no such file; run `python -m fklit.data fetch moses`, or "
                "`fklit.molecules.write_molecules` on your own."
            )
    tensors = load_file(root / f"{split}.safetensors")
    smiles = (root / f"{split}.smi").read_text(encoding="utf-8").split()
    if len(smiles) != len(tensors["tokens"]):
        raise ValueError(
            f"expected {len(tensors['tokens'])} SMILES in {root / f'{split}.smi'}, got {len(smiles)}; write the data "
            "set again."
        )
    return MoleculeFile(tensors["tokens"], tensors["properties"], smiles)


def _pieces(smiles: Sequence[str], names: tuple[str, ...], root: Path) -> list[dict[str, Any]]:
    """Symbols and properties of molecules, of which what is on disk is read."""
    from rich.progress import track

    starts = range(0, len(smiles), _PIECE)
    rows: list[dict[str, Any]] = []
    for start in track(starts, f"{len(smiles):,} molecules"):
        some = list(smiles[start : start + _PIECE])
        digest = hashlib.sha256(json.dumps([some, names, _versions()]).encode()).hexdigest()
        path = root / PIECES / f"{digest[:24]}.json"
        if path.is_file():
            rows += json.loads(path.read_text(encoding="utf-8"))
            continue
        made = [_measured(text, names) for text in some]
        write_json_atomically(path, made)
        rows += made
    return rows


def _measured(text: str, names: tuple[str, ...]) -> dict[str, Any]:
    values, smiles = measure(text, names), canonical_smiles(text)
    if values is None or smiles is None:
        raise ValueError(f"expected a SMILES, got {text!r}; fix it or leave it out.")
    return {"smiles": smiles, "symbols": to_symbols(text), "properties": values}


def _write_split(
    root: Path, split: str, kept: Sequence[tuple[dict[str, Any], list[int]]], width: int, length: int
) -> None:
    from safetensors.torch import save

    tensors = {
        "tokens": torch.tensor([tokens for _, tokens in kept], dtype=torch.uint8).reshape(-1, length),
        "properties": torch.tensor([row["properties"] for row, _ in kept], dtype=torch.float32).reshape(-1, width),
    }
    with write_atomically(root / f"{split}.safetensors") as file:
        file.write(save(tensors))
    write_text_atomically(root / f"{split}.smi", "".join(f"{row['smiles']}\n" for row, _ in kept))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("rdkit", "selfies")}
