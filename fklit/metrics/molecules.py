"""Metrics of sets of molecules: validity, uniqueness, novelty, diversity, and how many meet all objectives."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fklit.metrics.pareto import hypervolume
from fklit.metrics.text_store import Samples, TextStore
from fklit.rewards.base import Reward
from fklit.rewards.molecule_properties import canonical_smiles, fingerprints, parse_smiles, rdkit_module


def internal_diversity(smiles: Sequence[str]) -> float:
    """One minus the mean Tanimoto similarity of Morgan fingerprints (radius 2, 2,048 bits) over pairs; NaN below two.

    IntDiv of MOSES (Polykovskiy et al. 2020, arXiv:1811.12823) without each molecule against itself, which would count
    in small sets.

    Args:
        smiles: Molecules.

    Raises:
        ValueError: One is no molecule.
    """
    bulk = rdkit_module("DataStructs", owner="internal_diversity").BulkTanimotoSimilarity
    prints = []
    for text in smiles:
        molecule = parse_smiles(text)
        if molecule is None:
            raise ValueError(f"expected SMILES, got {text!r}; leave out what is no molecule.")
        prints.append(fingerprints().GetFingerprint(molecule))
    pairs = [value for place in range(1, len(prints)) for value in bulk(prints[place], prints[:place])]
    return 1.0 - sum(pairs) / len(pairs) if pairs else math.nan


class MoleculeQuality(TextStore):
    """What MOSES reports of a set of SMILES, each in [0, 1].

    `valid` is the share that RDKit reads, `unique` the share of different molecules among the valid ones, `novel` the
    share of the different ones that are not in the training set, `internal_diversity` that of the valid ones.

    ```yaml
    molecules: {class_path: MoleculeQuality, init_args: {train: data/moses/train.smi}}
    ```

    Args:
        train: File of canonical SMILES of the training set, one a line; None leaves `novel` out.
        samples: Which molecules of a prompt: "all" K, or the "chosen" one.

    Raises:
        FileNotFoundError: There is no such file (in `compute`).
    """

    higher_is_better = True

    def __init__(self, train: str | None = None, *, samples: Samples = "all") -> None:
        super().__init__(samples=samples)
        self.train_file = train

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars; NaN where there is nothing to measure."""
        texts = [text for _, some in self.stored() for text in some]
        valid = [text for text in map(canonical_smiles, texts) if text is not None]
        different = set(valid)
        found = {
            "valid": len(valid) / len(texts) if texts else math.nan,
            "unique": len(different) / len(valid) if valid else math.nan,
            "internal_diversity": internal_diversity(valid),
        }
        if self.train_file is not None:
            known = _known(self.train_file)
            found["novel"] = len(different - known) / len(different) if different else math.nan
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


class MoleculeObjectives(TextStore):
    """Shares of molecules that meet objectives, and the hypervolume of the objectives.

    `met` is the share of all texts that are molecules with every reward at its threshold or above, `met_NAME` that of
    one, `hypervolume` what the set of molecules dominates above the reference.

    ```yaml
    objectives:
      class_path: MoleculeObjectives
      init_args:
        rewards: {qed: {class_path: QED}, sa: {class_path: SyntheticAccessibility}}
        at_least: {qed: 0.86, sa: 0.87}
    ```

    Args:
        rewards: Objectives by name, higher is better.
        at_least: Threshold of each.
        reference: Corner of the hypervolume; 0 for each if not given.
        samples: Which molecules of a prompt: "all" K, or the "chosen" one.

    Raises:
        ValueError: Names of thresholds or reference differ from those of the rewards.
    """

    higher_is_better = True

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        at_least: Mapping[str, float],
        *,
        reference: Mapping[str, float] | None = None,
        samples: Samples = "all",
    ) -> None:
        super().__init__(samples=samples)
        corner = dict.fromkeys(rewards, 0.0) if reference is None else dict(reference)
        for name, given in (("at_least", at_least), ("reference", corner)):
            if set(given) != set(rewards) or not rewards:
                raise ValueError(
                    f"expected {name} for each reward, {sorted(rewards)}, got {sorted(given)}; give one number each."
                )
        self.rewards = nn.ModuleDict(dict(rewards))
        self.at_least, self.corner = dict(at_least), corner

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars; NaN without texts."""
        texts = [text for _, some in self.stored() for text in some]
        molecules = [text for text in texts if parse_smiles(text) is not None]
        names = list(self.at_least)
        columns = [self.rewards[name](molecules, [""] * len(molecules)).double().cpu() for name in names]
        values = torch.stack(columns, dim=1)
        meets = values >= torch.tensor([self.at_least[name] for name in names], dtype=torch.float64)
        total = float(len(texts)) if texts else math.nan
        found = {"met": float(meets.all(dim=1).sum()) / total}
        found |= {f"met_{name}": float(meets[:, place].sum()) / total for place, name in enumerate(names)}
        found["hypervolume"] = hypervolume(values, [self.corner[name] for name in names]) if texts else math.nan
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


@cache
def _known(path: str) -> frozenset[str]:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"expected SMILES of the training set in {path}, got no such file; run `python -m fklit.data fetch moses`."
        )
    return frozenset(Path(path).read_text(encoding="utf-8").split())
