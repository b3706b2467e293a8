"""Rewards of molecules: the contract, RDKit's values, and what is no molecule."""

import math
import sys

import pytest
import torch

from fklit.rewards import QED, LogP, RewardError, Similarity, SyntheticAccessibility, WeightedSum
from fklit.rewards.molecule_properties import measure
from fklit.rewards.testing import RewardTests

Chem = pytest.importorskip("rdkit.Chem")
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
TEXTS = [ASPIRIN, "CCO", "c1ccccc1", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]


class OfMolecules(RewardTests):
    def make_samples(self, count):
        return TEXTS[:count]


class TestQED(OfMolecules):
    def make_reward(self, max_batch=None):
        return QED(max_batch=max_batch)


class TestSyntheticAccessibility(OfMolecules):
    def make_reward(self, max_batch=None):
        return SyntheticAccessibility(max_batch=max_batch)


class TestLogP(OfMolecules):
    def make_reward(self, max_batch=None):
        return LogP(max_batch=max_batch)


class TestSimilarity(OfMolecules):
    def make_reward(self, max_batch=None):
        return Similarity(ASPIRIN, max_batch=max_batch)


@pytest.mark.parametrize(("text", "nitrogens", "oxygens", "tpsa"), [(ASPIRIN, 0, 4, 63.6), (TEXTS[4], 4, 2, 61.82)])
def test_counts_and_polar_surface(text, nitrogens, oxygens, tpsa):
    assert measure(text, ["tpsa", "nitrogens", "oxygens"]) == [pytest.approx(tpsa), nitrogens, oxygens]


def test_values_are_those_of_rdkit():
    from rdkit.Chem import QED as reference
    from rdkit.Chem import Crippen
    from rdkit.Contrib.SA_Score import sascorer

    molecules = [Chem.MolFromSmiles(text) for text in TEXTS]
    torch.testing.assert_close(QED()(TEXTS).tolist(), [reference.qed(one) for one in molecules])
    easy = [(10 - sascorer.calculateScore(one)) / 9 for one in molecules]
    torch.testing.assert_close(SyntheticAccessibility()(TEXTS).tolist(), easy)
    logp = [Crippen.MolLogP(one) for one in molecules]
    wanted = [0.0 if 1 <= value <= 2 else -min(abs(value - 1), abs(value - 2)) for value in logp]
    assert min(wanted) < 0 and 0.0 in wanted
    torch.testing.assert_close(LogP(1.0, 2.0)(TEXTS).tolist(), wanted)
    found = Similarity("OC(=O)c1ccccc1OC(C)=O")(TEXTS)  # aspirin, written in another order
    assert float(found[0]) == 1.0 and (found[1:] < 0.5).all() and (found >= 0).all()


def test_what_is_no_molecule_has_the_score_that_was_asked_for_and_is_not_printed(capfd):
    assert QED()(["", "C1CC", "CCO"]).tolist()[:2] == [0.0, 0.0]
    assert LogP()([""]).tolist() == [-10.0] and QED(invalid=-1.0)([""]).tolist() == [-1.0]
    with pytest.raises(RewardError, match=r"QED expected SMILES, got 'C1CC'; give a score for such texts by invalid"):
        QED(invalid=None)(["C1CC"])
    assert capfd.readouterr() == ("", "")


def test_mistakes_are_said_in_one_line(monkeypatch):
    with pytest.raises(ValueError, match="expected low of at most high"):
        LogP(2.0, 1.0)
    with pytest.raises(ValueError, match="expected invalid as a number or None, got nan"):
        QED(invalid=math.nan)
    with pytest.raises(ValueError, match="Similarity expected a SMILES, got target='C1CC'"):
        Similarity("C1CC")(TEXTS)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.setitem(sys.modules, "rdkit.Chem", None)
    with pytest.raises(ImportError, match=r"QED expected the package rdkit, got .*; install the extra 'molecules'"):
        QED()(TEXTS)


def test_they_add_up_with_others():
    both = WeightedSum([QED(), SyntheticAccessibility()], [2.0, 1.0])
    torch.testing.assert_close(both(TEXTS), 2 * QED()(TEXTS) + SyntheticAccessibility()(TEXTS))
