"""Conditions on how many atoms of an element a molecule has."""

import re
from dataclasses import dataclass
from typing import Any, Self

_SYMBOL = re.compile(r"\[[=#/\\]?\d*(?P<element>[A-Z][a-z]?)")
_INDEXED = re.compile(r"(Branch|Ring)(?P<number>\d)\]$")
_CONDITION = re.compile(r"\s*(?P<name>\w+)\s*(?P<sign><=|>=|=)\s*(?P<number>\d+)\s*")
HEAVY = "heavy_atoms"


@dataclass(frozen=True)
class AtomCount:
    """So many atoms of an element, or heavy atoms of all elements.

    Attributes:
        element: Such as "O", or "heavy_atoms" for all but hydrogen.
        at_least: The smallest number.
        at_most: The largest number; None for any.

    Raises:
        ValueError: The element is none, the numbers leave nothing, or leave everything.
    """

    element: str
    at_least: int = 0
    at_most: int | None = None

    def __post_init__(self) -> None:
        if self.element != HEAVY and not re.fullmatch(r"[A-Z][a-z]?", self.element):
            raise ValueError(f"expected an element such as 'O', or {HEAVY!r}, got {self.element!r}; give one of these.")
        if self.element == "H":
            raise ValueError(f"expected an element that SELFIES writes, got 'H'; count others, or {HEAVY!r}.")
        if self.at_least < 0 or (self.at_most is not None and self.at_most < self.at_least):
            raise ValueError(
                f"expected 0 <= at_least <= at_most, got at_least={self.at_least} and at_most={self.at_most}; fix them."
            )
        if self.at_least == 0 and self.at_most is None:
            raise ValueError("expected at_least above 0 or at_most, got neither; give one.")

    def __str__(self) -> str:
        """As `parse` reads it, where one condition says it."""
        if self.at_most is None:
            return f"{self.element}>={self.at_least}"
        if self.at_least == self.at_most:
            return f"{self.element}={self.at_least}"
        return (
            f"{self.element}<={self.at_most}"
            if self.at_least == 0
            else f"{self.at_least}<={self.element}<={self.at_most}"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "O>=4", "heavy_atoms<=20" or "N=2".

        Raises:
            ValueError: It is something else.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ValueError(f"expected a count such as 'O>=4' or '{HEAVY}<=20', got {text!r}; write it so.")
        number, sign = int(match["number"]), match["sign"]
        return cls(match["name"], 0 if sign == "<=" else number, None if sign == ">=" else number)

    def counts(self, symbol: str) -> bool:
        """Whether a symbol of SELFIES, where it is no index, is one of these atoms.

        Args:
            symbol: Such as "[=O]".
        """
        element = element_of(symbol)
        return element is not None and (element == self.element or self.element == HEAVY)

    @property
    def most(self) -> int:
        """The largest number that is told from larger ones."""
        return self.at_least if self.at_most is None else self.at_most + 1

    def number_in(self, molecule: Any) -> int:
        """How many such atoms a molecule of RDKit has.

        Args:
            molecule: A `rdkit.Chem.Mol`.
        """
        if self.element == HEAVY:
            return int(molecule.GetNumHeavyAtoms())
        return sum(atom.GetSymbol() == self.element for atom in molecule.GetAtoms())

    def met(self, number: int) -> bool:
        """Whether a molecule with so many meets the condition."""
        return self.at_least <= number and (self.at_most is None or number <= self.at_most)


def element_of(symbol: str) -> str | None:
    """Element of the heavy atom that a symbol of SELFIES adds; None for branches, rings and hydrogen.

    Args:
        symbol: Such as "[=O]" or "[NH1]".
    """
    match = _SYMBOL.match(symbol)
    return None if match is None or indices_after(symbol) or match["element"] == "H" else match["element"]


def indices_after(symbol: str) -> int:
    """How many symbols after this one are its index, and no atoms: 2 for "[Branch2]", 0 for atoms."""
    match = _INDEXED.search(symbol)
    return int(match["number"]) if match else 0
