"""The model of molecules: its law under a condition, steering, configurations, records and drawings."""

import base64
import json
import sys

import pytest
import torch
from html_page import parse
from tiny_molecules import EDGES, table_model, write_tiny_molecules

import fklit
from fklit.cli import main
from fklit.molecules import Conditions, MoleculeModel, MoleculeSource, draw_molecule
from fklit.molecules.strings.vocabulary import build_tokenizer
from fklit.report.texts import read_texts
from fklit.text import DiffusionTransformer, TextSampling, TransformerSettings, save_folder

pytest.importorskip("selfies")


@pytest.fixture
def model():
    return table_model()


def test_samples_follow_the_law_of_their_condition(model):
    made = model.sample(["qed=high", ""], 4000)
    for prompt, texts in zip(["qed=high", ""], made, strict=True):
        law = model.denoiser.law(model.vocabulary.condition(prompt).tolist())
        wanted: dict[str, float] = {}
        for state, share in zip(model.denoiser.states.tolist(), law.tolist(), strict=True):
            wanted[model.vocabulary.smiles(state)] = wanted.get(model.vocabulary.smiles(state), 0.0) + share
        gaps = [abs(texts.count(text) / 4000 - share) for text, share in wanted.items()]
        assert sum(gaps) / 2 < 0.04


def test_steering_tilts_the_law(model):
    def oxygen(texts):
        return [float(text.count("O")) for text in texts]

    result = fklit.steer(
        model, ["sa=low"], reward=oxygen, reward_scale=1.0, num_particles=4000, pipeline_kwargs={"num_steps": 10}
    )
    law = model.denoiser.law(model.vocabulary.condition("sa=low").tolist())
    rewards = torch.tensor(oxygen([model.vocabulary.smiles(state) for state in model.denoiser.states.tolist()]))
    tilted = law * rewards.double().exp()
    assert float(result.log_z) == pytest.approx(float(tilted.sum().log()), abs=0.05)
    mean = float((result.log_weights.exp() * result.rewards).sum())
    assert mean == pytest.approx(float((tilted * rewards).sum() / tilted.sum()), abs=0.06)
    assert result.details is not None
    words = result.details[0][0]["pieces"]
    assert len(words) == 5 and words[:2] == ["", ""] and set(words[2:]) <= {"", "[C]", "[N]", "[O]"}


def test_mistakes_are_said_in_one_line(model):
    with pytest.raises(ValueError, match="expected conditions such as qed=high"):
        fklit.steer(model, ["drug-like"], reward=len, num_particles=2)
    length = "expected length=5, the 2 conditions and 3 symbols of this model, got 9"
    with pytest.raises(ValueError, match=length):
        model.encode([""], 9)
    with pytest.raises(ValueError, match=length):
        MoleculeModel(model.denoiser, model.tokenizer, sampling=TextSampling(length=9))


def network_folder(folder, *, max_symbols=6):
    tokenizer = build_tokenizer(["[C]", "[N]", "[O]"], Conditions(EDGES), max_symbols=max_symbols)
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    settings = TransformerSettings(vocab_size=32, width=16, layers=1, heads=2, dropout=0.0)
    save_folder(DiffusionTransformer(settings), folder / "tokenizer", folder / "model")
    return folder / "model"


def test_networks_never_make_tokens_that_stand_for_nothing(tmp_path):
    model = MoleculeModel.from_folder(network_folder(tmp_path))
    assert model.sampling.length == 8 and set(range(len(model.tokenizer), 32)) <= set(model.never)
    tokens = model.steering_model([""], type("S", (), {"pipeline_kwargs": None, "max_batch": None})())
    assert tokens.denoising.never == model.never
    allowed = {0, *model.tokenizer.convert_tokens_to_ids(["[C]", "[N]", "[O]"])}
    found = model.denoising().log_probs(model.encode([""], 8), torch.arange(8)[None] >= 2)
    assert {place for place, value in enumerate(found[0].tolist()) if value > -1e9} == allowed


def test_a_source_is_the_same_model(tmp_path):
    folder = network_folder(tmp_path)
    source = MoleculeSource(str(folder), num_steps=5, num_draws=2)
    built = source.build()
    assert built.sampling == TextSampling(length=8, num_steps=5, num_draws=2)
    assert built.sample("qed=low", 4) == MoleculeModel.from_folder(folder, sampling=built.sampling).sample("qed=low", 4)
    assert source.network is built.denoiser and "content" in source.settings()
    assert source.settings() != MoleculeSource(str(folder), num_steps=6).settings()


def test_drawings():
    pytest.importorskip("rdkit")
    assert "<svg" in draw_molecule("c1ccccc1O") and draw_molecule("C1CC") is None and draw_molecule("") is None


@pytest.mark.slow
def test_predict_writes_a_report_with_drawings(tmp_path, monkeypatch):
    pytest.importorskip("rdkit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    folder = network_folder(tmp_path, max_symbols=2)
    reward = {"class_path": "QED"}
    source = {"class_path": "fklit.molecules.MoleculeSource", "init_args": {"path": str(folder), "num_steps": 8}}
    model = {"source": source, "reward": reward, "reward_scale": 5.0, "num_particles": 8}
    config = {
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "callbacks": [
                {"class_path": "SampleWriter", "init_args": {"output_dir": "out"}},
                {"class_path": "Report", "init_args": {"title": "molecules"}},
            ],
        },
        "model": {"class_path": "SteeringTask", "init_args": model},
        "data": {"class_path": "PromptDataModule", "init_args": {"prompts": ["qed=high", "any"]}},
    }
    (tmp_path / "run.json").write_text(json.dumps(config))
    main(["predict", "--config", "run.json", "--trainer.enable_progress_bar", "false"])
    from fklit.report.reading import read_run

    records = read_run(tmp_path / "out").records
    samples = read_texts(records[0])
    drawn = [sample for sample in samples if sample.text]
    assert drawn and all(sample.drawing.startswith("data:image/svg+xml;base64,") for sample in drawn)
    assert b"<svg" in base64.b64decode(drawn[0].drawing.partition(",")[2])
    page = parse(tmp_path / "out" / "report.html")
    # Once on the prompt's card of the index, and once for each particle in full.
    shown = sum(address.startswith("data:image/svg+xml") for address in page.addresses)
    chosen = [read_texts(record)[record.chosen] for record in records.values()]
    assert shown == sum(bool(one.text) for one in chosen) + sum(
        bool(sample.text) for record in records.values() for sample in read_texts(record)
    )


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_debug_training_runs_as_it_is(tmp_path, monkeypatch):
    """`fklit fit --config configs/debug/molecules.yaml` on a data set of 150 molecules."""
    pytest.importorskip("rdkit")
    from pathlib import Path

    config = Path(__file__).parents[2] / "configs" / "debug" / "molecules.yaml"
    write_tiny_molecules(tmp_path / "data" / "moses")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["fit", "--config", str(config)])
    model = MoleculeModel.from_folder("outputs/debug/molecules/molecules")
    assert model.vocabulary.conditions.names == ("qed", "sa", "logp", "rings", "heavy_atoms")
    assert len(model.sample("qed=high", 2)[0]) == 2
    main(["fit", "--config", str(config), "--ckpt_path", "last", "--trainer.max_steps", "4"])
    checkpoint = torch.load("outputs/debug/molecules/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
