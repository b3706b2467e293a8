"""The model of molecules that ships: it makes molecules, and knows the condition that its card says it knows best."""

import math

import pytest
import torch

from fklit.molecules import MoleculeModel
from fklit.rewards.molecule_properties import measure

pytest.importorskip("rdkit")
pytest.importorskip("selfies")


@pytest.mark.slow
def test_size_is_learned_and_most_are_valid():
    model = MoleculeModel.from_folder("fklit:molecules")
    conditions = model.vocabulary.conditions
    prompts = ["any", "heavy_atoms=high"]
    without, given = (
        torch.tensor([measure(text, conditions.names) or [math.nan] * len(conditions.names) for text in texts])
        for texts in model.sample(prompts, 48, seed=0)
    )
    assert float((~torch.cat([without, given]).isnan().any(dim=1)).double().mean()) >= 0.85
    share = [float(conditions.met(prompts[1], rows).double().mean()) for rows in (without, given)]
    assert share[1] >= share[0] + 0.15  # 0.18 and 0.52 of 160
