"""SELFIES (Krenn et al. 2020, arXiv:1905.13741): strings of symbols of which every one is a molecule."""

from typing import Any

from fklit.rewards.molecule_properties import FIX
from fklit.rewards.optional import import_optional


def _selfies() -> Any:
    return import_optional("selfies", owner="SELFIES", fix=FIX)


def to_symbols(smiles: str) -> list[str]:
    """Symbols of a molecule, such as `["[C]", "[O]"]`.

    Args:
        smiles: The molecule.

    Raises:
        ValueError: SELFIES cannot say it.
        ImportError: selfies is not installed.
    """
    selfies = _selfies()
    try:
        text = selfies.encoder(smiles)
    except selfies.EncoderError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"expected a SMILES that SELFIES can say, got {smiles!r} ({said}); leave it out.") from None
    return list(selfies.split_selfies(text))


def to_smiles(symbols: list[str]) -> str:
    """SMILES of symbols; it is empty if they make no atom.

    Args:
        symbols: Of SELFIES.

    Raises:
        ValueError: A symbol is none of SELFIES.
        ImportError: selfies is not installed.
    """
    selfies = _selfies()
    try:
        return str(selfies.decoder("".join(symbols)))
    except selfies.DecoderError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"expected symbols of SELFIES, got {''.join(symbols)!r} ({said}); fix them.") from None
