"""What rewards of proteins score: one design with its atoms and its sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class ProteinDesign:
    """One design of N tokens, as `RFD4ProteinaPipeline` returns a row of a batch. Lengths are in nanometers.

    Attributes:
        coords_nm: (N, 37, 3), coordinates of the atoms; 0 where there is none.
        residue_type: (N,), indices of the residue vocabulary; -1 where no residue is designed.
        emit_mask: (N,), the tokens that were designed.
        atom_mask: (N, 37), the atoms that are there.
        bb_ca: (N, 3), the alpha carbons.
    """

    modality: ClassVar[str] = "structure"

    coords_nm: Float[Tensor, "N 37 3"]
    residue_type: Int64[Tensor, " N"]
    emit_mask: Bool[Tensor, " N"]
    atom_mask: Bool[Tensor, "N 37"]
    bb_ca: Float[Tensor, "N 3"]


def radius_of_gyration(designs: Sequence[ProteinDesign]) -> Float[Tensor, " n"]:
    """Return the root mean square distance of the designed alpha carbons to their center, (n,) in nanometers.

    A reward of compact designs is its negative: `lambda designs: -radius_of_gyration(designs)`.

    Args:
        designs: n designs.

    Raises:
        ValueError: for a design without a designed token.
    """
    found = []
    for design in designs:
        points = design.bb_ca[design.emit_mask].double()
        if len(points) == 0:
            raise ValueError("expected designs with a designed token, got one without; check the masks of the input.")
        found.append((points - points.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    return torch.stack(found)
