"""Data sets of molecules: what is written, kept and refused; MOSES by a stand-in of its wheel."""

import gzip
import hashlib
import json
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from tiny_molecules import SMILES, write_tiny_molecules

from fklit.data.__main__ import main
from fklit.molecules import MoleculeDataModule, read_molecules, write_molecules
from fklit.molecules.strings import files, moses
from fklit.molecules.strings.data import keep_some

pytest.importorskip("selfies")
Chem = pytest.importorskip("rdkit.Chem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("molecules")
    write_tiny_molecules(root)
    return root


def test_what_is_written_says_the_molecules(folder):
    from rdkit.Chem import QED
    from transformers import AutoTokenizer

    from fklit.molecules import MoleculeVocabulary

    found = read_molecules(folder, "train")
    vocabulary = MoleculeVocabulary(AutoTokenizer.from_pretrained(folder / "tokenizer"))
    assert found.tokens.shape == (150, 48) and found.properties.shape == (150, 5)
    for row in (0, 70, 149):
        molecule = Chem.MolFromSmiles(SMILES[row])
        assert found.smiles[row] == Chem.MolToSmiles(molecule)
        assert Chem.CanonSmiles(vocabulary.smiles(found.tokens[row].tolist())) == found.smiles[row]
        assert float(found.properties[row, 0]) == pytest.approx(QED.qed(molecule), rel=1e-5)
        assert found.properties[row, 4] == molecule.GetNumHeavyAtoms()
    levels = vocabulary.conditions.levels(found.properties)
    assert 0.25 < float((levels[:, 0] == 0).double().mean()) < 0.42
    summary = json.loads((folder / "molecules.json").read_text())
    assert summary["train"]["molecules"] == 150 and list(summary["edges"]) == summary["properties"]


def test_pieces_are_taken_over_and_nothing_is_left_out_in_silence(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PIECE", 20)
    short = {"properties": ["logp", "heavy_atoms"]}
    write_molecules(SMILES[:60], SMILES[150:160], tmp_path, **short)
    measured = []
    monkeypatch.setattr(
        files, "_measured", lambda text, names, real=files._measured: measured.append(text) or real(text, names)
    )
    assert write_molecules(SMILES[:60], SMILES[150:160], tmp_path, **short)["train"]["molecules"] == 60
    assert measured == []
    found = write_molecules(SMILES[:80], [*SMILES[150:160], "C[Si](C)C"], tmp_path, max_symbols=8, **short)
    assert measured[:20] == SMILES[60:80]
    longer = found["train"]["left_out_longer"]
    assert longer > 0 and found["train"]["molecules"] + longer == 80
    assert found["held_out"]["left_out_unknown_symbols"] == 1


def test_mistakes_are_said_in_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match="expected a SMILES, got 'C1CC'; fix it or leave it out"):
        write_molecules(["C1CC"], ["C"], tmp_path)
    with pytest.raises(ValueError, match="expected max_symbols of at least 1"):
        write_molecules(["C"], ["C"], tmp_path, max_symbols=0)
    with pytest.raises(ValueError, match="expected different properties among"):
        write_molecules(["C"], ["C"], tmp_path, properties=["mass"])
    with pytest.raises(FileNotFoundError, match="fetch moses"):
        read_molecules(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="fetch moses"):
        MoleculeDataModule(str(tmp_path)).setup("fit")
    with pytest.raises(ValueError, match="expected batch_size of at least 1"):
        MoleculeDataModule(batch_size=0)
    with pytest.raises(ValueError, match="expected at least 1000 molecules, got 150"):
        MoleculeDataModule(str(folder), 1000).setup("fit")


def test_batches_keep_random_conditions_and_the_symbols(folder):
    module = MoleculeDataModule(str(folder), 50)
    module.setup("fit")
    vocabulary = module.train_set.vocabulary
    batch = next(iter(module.train_dataloader()))
    assert batch["tokens"].shape == (50, 53) and batch["given"][:, :5].all() and not batch["given"][:, 5:].any()
    opened = batch["tokens"][:, :5] == vocabulary.levels[:, -1]
    assert 0.3 < float(opened.double().mean()) < 0.7
    assert not (batch["tokens"][:, 5:] == vocabulary.mask).any()
    first, second = ([one["tokens"] for one in module.val_dataloader()] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert [len(one) for one in first] == [30]


def test_every_number_of_conditions_is_kept_equally_often():
    kept = keep_some(60_000, 2, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(kept.sum(dim=1), minlength=3).double() / 60_000
    torch.testing.assert_close(counts, torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.01, rtol=0)
    single = kept[kept.sum(dim=1) == 1].double().mean(dim=0)
    torch.testing.assert_close(single, torch.full((2,), 0.5, dtype=torch.float64), atol=0.02, rtol=0)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    path = tmp_path / "moses" / moses.WHEEL.name
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        # Terciles of nitrogens and oxygens need molecules with none to three of them
        texts = ["CN" * (row % 4) + "CO" * (row // 4 % 4) + text for row, text in enumerate(SMILES)]
        for name, column in ((moses.TABLES["train"], texts[:150]), (moses.TABLES["held_out"], texts[150:])):
            lines = ["SMILES,SPLIT", *(f"{text},x" for text in column)]
            file.writestr(name, gzip.compress("\n".join(lines).encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(moses, "WHEEL", replace(moses.WHEEL, sha256=digest))
    return path


def test_the_wheel_becomes_a_data_set(wheel, capsys):
    words = ["fetch", "moses", str(wheel.parent), "--molecules", "40", "--held_out", "8"]
    assert main(words) == 0
    small = read_molecules(wheel.parent, "train").smiles
    properties = json.loads((wheel.parent / "molecules.json").read_text())["properties"]
    assert properties == ["qed", "sa", "logp", "rings", "heavy_atoms", "nitrogens", "oxygens", "tpsa"]
    assert len(small) == 40 and len(set(small)) == 40 and len(read_molecules(wheel.parent, "held_out").smiles) == 8
    words[4] = "90"
    assert main(words) == 0
    assert read_molecules(wheel.parent, "train").smiles[:40] == small
    assert main(["verify", "moses", str(wheel.parent)]) == 0
    assert "molecules and tokenizer are in" in capsys.readouterr().out


def test_what_is_missing_or_wrong_with_moses_is_said_in_one_line(wheel, monkeypatch, capsys):
    assert main(["fetch", "moses", str(wheel.parent)]) == 1
    wheel.write_bytes(b"x")
    assert main(["fetch", "moses", str(wheel.parent), "--molecules", "1", "--held_out", "1"]) == 1
    monkeypatch.setitem(sys.modules, "selfies", None)
    assert main(["fetch", "moses", str(wheel.parent)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "expected molecules from 1 to 150, got 300000" in said[0]
    assert "expected sha256" in said[1] and "fklit[molecules]" in said[2] and len(said) == 3
    with pytest.raises(SystemExit):
        main(["fetch", "text", "--molecules", "3"])
    assert "expected --molecules with moses only, got it with text" in capsys.readouterr().err


def test_the_pin():
    assert moses.WHEEL.version in moses.WHEEL.name and len(moses.WHEEL.sha256) == 64
