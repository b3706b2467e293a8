"""Rewards of molecules by RDKit: drug-likeness, ease of synthesis, lipophilicity, likeness to a target."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.rewards.base import Reward, RewardError
from fklit.rewards.molecule_properties import PROPERTIES, fingerprints, parse_smiles, rdkit_module


class MoleculeReward(Reward):
    """Scores SMILES; subclasses write `of`, the score of a parsed molecule.

    Args:
        invalid: Score of a text that is no molecule, such as an empty one; None refuses it by name.
        max_batch: Most molecules at once; None for no limit. It changes nothing.
        pad: Fill the last micro-batch (see `Reward`).
    """

    accepts = "text"
    needs_prompts = False

    def __init__(self, *, invalid: float | None = 0.0, max_batch: int | None = None, pad: bool = False) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        if invalid is not None and math.isnan(invalid):
            raise ValueError("expected invalid as a number or None, got nan; None refuses what is no molecule.")
        self.invalid = invalid

    def build(self) -> None:
        """Looks for RDKit.

        Raises:
            ImportError: It is not installed.
        """
        rdkit_module("Chem", owner=self.display_name)

    def of(self, molecule: Any) -> float:
        """The score of a molecule of RDKit."""
        raise NotImplementedError

    def score(
        self, samples: Sequence[str], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Scores (n,), float64.

        Raises:
            RewardError: A text is no molecule, and `invalid` is None.
        """
        precision = torch.float32 if self.device.type == "mps" else torch.float64  # which has no other
        scores = [self._scored(text) for text in samples]
        return torch.tensor(scores, dtype=precision, device=self.device)

    def _scored(self, text: str) -> float:
        molecule = parse_smiles(text)
        if molecule is not None:
            return self.of(molecule)
        if self.invalid is None:
            raise RewardError(
                f"{self.display_name} expected SMILES, got {text!r}; give a score for such texts by invalid=0.0."
            )
        return self.invalid


class QED(MoleculeReward):
    """Quantitative estimate of drug-likeness in [0, 1] (Bickerton et al. 2012), by RDKit's default weights.

    Molecules of MOSES have 0.8 on average with a standard deviation of 0.1: a scale of 20 is two of them. It is easily
    gamed by odd molecules; add `SyntheticAccessibility`.

    Args:
        invalid: Score of a text that is no molecule; None refuses it by name.
        max_batch: Most molecules at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    typical_range = (0.2, 0.95)
    suggested_scale = 20.0
    upper_bound = 1.0

    def of(self, molecule: Any) -> float:
        """The estimate."""
        return PROPERTIES["qed"](molecule)


class SyntheticAccessibility(MoleculeReward):
    """Ease of synthesis, `(10 - SA) / 9` in [0, 1], of the SA score from 1 (easy) to 10 (Ertl and Schuffenhauer 2009).

    Molecules of MOSES have an SA of 2.5, which is 0.83 here.

    Args:
        invalid: Score of a text that is no molecule; None refuses it by name.
        max_batch: Most molecules at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    typical_range = (0.4, 0.95)
    suggested_scale = 20.0
    upper_bound = 1.0

    def of(self, molecule: Any) -> float:
        """`(10 - SA) / 9`."""
        return (10.0 - PROPERTIES["sa"](molecule)) / 9.0


class LogP(MoleculeReward):
    """Minus the distance of Crippen's octanol-water partition coefficient from an interval; 0 inside of it.

    Args:
        low: Lower end of the interval.
        high: Upper end of the interval.
        invalid: Score of a text that is no molecule; None refuses it by name.
        max_batch: Most molecules at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: The interval is empty.
    """

    typical_range = (-3.0, 0.0)
    suggested_scale = 2.0
    upper_bound = 0.0

    def __init__(
        self,
        low: float = 1.0,
        high: float = 3.0,
        *,
        invalid: float | None = -10.0,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(invalid=invalid, max_batch=max_batch, pad=pad)
        if not low <= high:
            raise ValueError(f"expected low of at most high, got low={low} and high={high}; swap them.")
        self.low, self.high = low, high

    def of(self, molecule: Any) -> float:
        """Minus the distance."""
        value = PROPERTIES["logp"](molecule)
        return -max(self.low - value, value - self.high, 0.0)


class Similarity(MoleculeReward):
    """Likeness to a target in [0, 1]: Tanimoto coefficient of Morgan fingerprints of radius 2 and 2,048 bits (ECFP4).

    Two molecules drawn from MOSES have 0.15 on average.

    Args:
        target: SMILES.
        invalid: Score of a text that is no molecule; None refuses it by name.
        max_batch: Most molecules at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: The target is no molecule (when the reward is first used).
    """

    typical_range = (0.05, 0.6)
    suggested_scale = 20.0
    upper_bound = 1.0

    def __init__(
        self, target: str, *, invalid: float | None = 0.0, max_batch: int | None = None, pad: bool = False
    ) -> None:
        super().__init__(invalid=invalid, max_batch=max_batch, pad=pad)
        self.target = target
        self._print: Any = None

    def build(self) -> None:
        """Reads the target."""
        super().build()
        molecule = parse_smiles(self.target)
        if molecule is None:
            raise ValueError(f"Similarity expected a SMILES, got target={self.target!r}; give that of a molecule.")
        self._print = fingerprints().GetFingerprint(molecule)

    def of(self, molecule: Any) -> float:
        """The coefficient."""
        similarity = rdkit_module("DataStructs", owner="Similarity").TanimotoSimilarity
        return float(similarity(fingerprints().GetFingerprint(molecule), self._print))
