"""Metrics of molecules on sets whose figures are counted by hand."""

import math

import pytest
import torch

from fklit.metrics import MoleculeObjectives, MoleculeQuality, internal_diversity, text_batch
from fklit.rewards import QED, LogP

pytest.importorskip("rdkit")


def test_quality_of_a_set(tmp_path):
    (tmp_path / "train.smi").write_text("CCO\nCCC\n")
    metric = MoleculeQuality(str(tmp_path / "train.smi"))
    metric.update(*text_batch([["OCC", "CCO", "c1ccccc1"], ["", "C1CC", "CCN"]]))
    found = metric.compute()
    assert float(found["valid"]) == pytest.approx(4 / 6) and float(found["unique"]) == pytest.approx(3 / 4)
    assert float(found["novel"]) == pytest.approx(2 / 3)
    assert float(found["internal_diversity"]) == internal_diversity(["OCC", "CCO", "c1ccccc1", "CCN"])
    # A prompt that comes twice counts once.
    metric.update(*text_batch([["OCC", "CCO", "c1ccccc1"]]))
    assert float(metric.compute()["valid"]) == pytest.approx(4 / 6)
    chosen = MoleculeQuality(samples="chosen")
    chosen.update(*text_batch([["", "CCO"]], chosen=[1]))
    assert float(chosen.compute()["valid"]) == 1.0 and "novel" not in chosen.compute()
    assert math.isnan(float(chosen.compute()["internal_diversity"]))


def test_internal_diversity():
    assert internal_diversity(["CCO", "OCC"]) == 0.0 and math.isnan(internal_diversity(["CCO"]))
    # Pairs: one of similarity 1, two of similarity s.
    far = internal_diversity(["CCO", "c1ccccc1"])
    assert 0.8 < far <= 1.0 and internal_diversity(["CCO", "OCC", "c1ccccc1"]) == pytest.approx(2 * far / 3)
    with pytest.raises(ValueError, match="expected SMILES, got 'C1CC'"):
        internal_diversity(["CCO", "C1CC"])


def test_objectives():
    rewards = {"qed": QED(), "logp": LogP(0.0, 10.0)}
    texts = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", ""]
    qed = QED()(texts)
    edge = float(qed[:3].sort().values[1])
    metric = MoleculeObjectives(rewards, {"qed": edge, "logp": 0.0}, reference={"qed": 0.0, "logp": -1.0})
    metric.update(*text_batch([texts]))
    found = metric.compute()
    assert float(found["met_qed"]) == 2 / 4
    inside = (LogP(0.0, 10.0)(texts) == 0.0) & torch.tensor([True] * 3 + [False])
    assert float(found["met_logp"]) == float(inside.sum()) / 4
    assert float(found["met"]) == float((inside & (qed >= edge)).sum()) / 4
    assert float(found["hypervolume"]) == pytest.approx(float(qed[inside].max()), abs=0.2)


def test_mistakes_are_said_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"expected at_least for each reward, \['qed'\], got \['sa'\]"):
        MoleculeObjectives({"qed": QED()}, {"sa": 0.5})
    with pytest.raises(ValueError, match="expected reference for each reward"):
        MoleculeObjectives({"qed": QED()}, {"qed": 0.5}, reference={})
    metric = MoleculeQuality(str(tmp_path / "none.smi"))
    metric.update(*text_batch([["CCO"]]))
    with pytest.raises(FileNotFoundError, match="expected SMILES of the training set"):
        metric.compute()
