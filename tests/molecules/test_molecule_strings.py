"""Symbols, conditions and tokens of molecules."""

import pytest
import torch
from tiny_molecules import EDGES
from transformers import AutoTokenizer

from fklit.molecules import Conditions, MoleculeVocabulary
from fklit.molecules.strings.vocabulary import build_tokenizer


@pytest.fixture
def vocabulary():
    return MoleculeVocabulary(build_tokenizer(["[C]", "[=O]", "[N]"], Conditions(EDGES), max_symbols=4))


def test_symbols_and_smiles():
    pytest.importorskip("selfies")
    from fklit.molecules.strings.symbols import to_smiles, to_symbols

    assert to_symbols("CC=O") == ["[C]", "[C]", "[=O]"] and to_smiles(["[C]", "[C]", "[=O]"]) == "CC=O"
    assert to_smiles([]) == ""
    with pytest.raises(ValueError, match="expected a SMILES that SELFIES can say, got 'C!'"):
        to_symbols("C!")
    with pytest.raises(ValueError, match=r"expected symbols of SELFIES, got '\[Foo\]'"):
        to_smiles(["[Foo]"])


def test_terciles_are_values_that_occur_and_levels_follow():
    values = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 2.0], [4.0, 2.0], [5.0, 3.0], [6.0, 4.0], [7.0, 4.0]])
    found = Conditions.fitted(["logp", "rings"], values)
    assert found.edges == {"logp": (3.0, 5.0), "rings": (2.0, 3.0)} and found.names == ("logp", "rings")
    levels = found.levels(values)
    assert levels[:, 0].tolist() == [0, 0, 0, 1, 1, 2, 2] and levels[:, 1].tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert found.met("logp=high rings=high", values).tolist() == [False] * 5 + [True, True]
    assert found.met("", values).all()
    assert not found.met("", torch.full((1, 2), torch.nan)).any()


def test_prompts():
    conditions = Conditions(EDGES)
    assert conditions.parse("sa=low, qed=high") == ["high", "low"]
    assert conditions.parse("") == conditions.parse("any") == ["any", "any"]
    assert conditions.tokens[:4] == ["<qed=low>", "<qed=mid>", "<qed=high>", "<qed=any>"]
    for prompt in ("qed", "qed=most", "size=low", "=low"):
        with pytest.raises(ValueError, match=r"such as qed=high .* got '.*' in '.*'; fix the prompt"):
            conditions.parse(prompt)
    with pytest.raises(ValueError, match="expected one level of qed, got two"):
        conditions.parse("qed=low qed=high")
    with pytest.raises(ValueError, match="expected two rising edges of qed"):
        Conditions({"qed": (0.5, 0.5)})
    with pytest.raises(ValueError, match="expected different properties among"):
        Conditions({"size": (0.0, 1.0)})


def test_tokens_come_back_from_a_folder_with_their_conditions_in_order(vocabulary, tmp_path):
    vocabulary.tokenizer.save_pretrained(tmp_path / "one")
    AutoTokenizer.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    again = MoleculeVocabulary(AutoTokenizer.from_pretrained(tmp_path / "two"))
    assert list(again.conditions.edges.items()) == list(EDGES.items())
    assert torch.equal(again.levels, vocabulary.levels) and again.length == 6 and again.prefix == 2
    assert again.tokenizer("[C][=O] <qed=high><mask>").input_ids == [2, 3, again.condition("qed=high")[0], again.mask]


def test_rows(vocabulary):
    pytest.importorskip("selfies")
    row = vocabulary.encode(["[C]", "[=O]"])
    assert len(row) == 4 and vocabulary.symbols(row) == ["[C]", "[=O]"] and vocabulary.smiles(row) == "C=O"
    assert vocabulary.encode(["[C]"] * 5) is None and vocabulary.encode(["[F]"]) is None
    symbol = row[0]
    assert vocabulary.symbols([vocabulary.pad, symbol]) is None and vocabulary.smiles([vocabulary.pad, symbol]) == ""
    assert vocabulary.symbols([symbol, vocabulary.mask]) is None
    assert vocabulary.symbols([symbol, int(vocabulary.levels[0, 0])]) is None
    assert vocabulary.smiles([vocabulary.pad] * 4) == ""


def test_other_tokenizers_are_refused():
    from fklit.text.words import build_tokenizer as words

    with pytest.raises(ValueError, match="expected a tokenizer of molecules with conditions"):
        MoleculeVocabulary(words(["<pad>", "<unk>", "<s>", "<mask>", "a"]))
