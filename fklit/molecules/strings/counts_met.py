"""Whether molecules meet counts of atoms as RDKit counts, as the reward of a corrector's last step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.molecules.strings.atom_counts import AtomCount
from fklit.molecules.strings.model import MoleculeModel
from fklit.rewards.molecule_properties import parse_smiles


class CountsMet:
    """Log of whether molecules meet all counts: a reward of 0 where they do and of `-inf` elsewhere.

    A chain of symbols counts symbols that SELFIES drops for want of free valences; this counts atoms.

    Args:
        model: Reads the tokens.
        counts: Such as `["O>=4", "heavy_atoms<=20"]`.

    Raises:
        ValueError: A count is none.
    """

    def __init__(self, model: MoleculeModel, counts: Sequence[AtomCount | str]) -> None:
        self.model = model
        self.counts = [AtomCount.parse(one) if isinstance(one, str) else one for one in counts]

    def __call__(self, tokens: Int64[Tensor, "B K S"]) -> Float64[Tensor, "B K"]:
        """Rewards of symbols without their conditions.

        Raises:
            ImportError: RDKit is not installed.
        """
        met = [self._met(text) for text in self.model.smiles(tokens.flatten(0, 1))]
        return torch.tensor(met, dtype=torch.float64).log().view(tokens.shape[:2])

    def _met(self, text: str) -> bool:
        molecule = parse_smiles(text)
        return molecule is not None and all(one.met(one.number_in(molecule)) for one in self.counts)
