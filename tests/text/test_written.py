"""What a run over texts leaves: files, the report, TensorBoard; and that it goes on where it was killed."""

import json
import re

import pytest
import torch
from html_page import parse
from lightning.pytorch import Trainer

import fklit
from fklit.callbacks import Report, SampleWriter, TensorBoardParticles
from fklit.callbacks.started_run import DamagedResultWarning
from fklit.data import PromptDataModule
from fklit.report.reading import read_run, write_scores
from fklit.report.record import parse_record
from fklit.report.texts import read_texts
from fklit.steering.task import SteeringTask
from fklit.text import DiffusionTransformer, MaskedTextModel, MaskedTextSource, TextSampling, TransformerSettings
from fklit.text.folder import save_folder
from fklit.text.words import build_tokenizer

PROMPTS = ["a b", "c"]
SAMPLING = {"length": 7, "num_steps": 6, "num_draws": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcd.,"]).save_pretrained(root / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=10, width=8, layers=1, heads=2))
    save_folder(network, root / "tokenizer", root / "model")
    return root / "model"


def count_a(texts):
    return [float(text.count("a")) for text in texts]


def run(folder, out, *callbacks, **given):
    task = SteeringTask(
        MaskedTextSource(str(folder), sampling=TextSampling(**SAMPLING)), reward=given.pop("reward", count_a),
        reward_scale=2.0, num_particles=3, max_batch=4, **given,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=out, callbacks=[SampleWriter(str(out)), *callbacks],
    )  # fmt: skip
    trainer.predict(task, PromptDataModule(prompts=PROMPTS, batch_size=1), return_predictions=False)
    return task


def steered(folder, **given):
    model = MaskedTextModel.from_folder(folder, sampling=TextSampling(**SAMPLING))
    return fklit.steer(model, PROMPTS, reward=count_a, reward_scale=2.0, num_particles=3, max_batch=4, **given)


def test_each_prompt_has_its_texts_with_what_made_them(folder, tmp_path):
    run(folder, tmp_path)
    result = steered(folder)
    for b, prompt in enumerate(PROMPTS):
        names = {path.name for path in (tmp_path / f"{b:05d}").iterdir()}
        assert names == {"metadata.jsonl", "texts.jsonl", "record.json"}
        lines = [json.loads(line) for line in (tmp_path / f"{b:05d}" / "texts.jsonl").read_text().splitlines()]
        assert [line["text"] for line in lines] == result.items[b] and [line["slot"] for line in lines] == [0, 1, 2]
        assert [line["reward"] for line in lines] == result.rewards[b].tolist() == count_a(result.items[b])
        assert torch.allclose(torch.tensor([line["weight"] for line in lines]).log().double(), result.log_weights[b])
        assert [line["chosen"] for line in lines].index(True) == int(result.best_index()[b])
        roots = torch.arange(3)
        for moved in result.ancestors[:, b]:
            roots = roots[moved]
        assert [line["ancestor"] for line in lines] == roots.tolist()
        given = len(prompt.split())
        for line in lines:
            assert "".join(line["pieces"]) == line["text"]
            assert all(step == -1 for step in line["unmasked_at"][:given])
            assert all(0 <= step < 6 for step in line["unmasked_at"][given:])


def test_a_token_is_dated_by_the_step_that_unmasked_it(folder):
    model = MaskedTextModel.from_folder(folder, sampling=TextSampling(**SAMPLING))
    one = model.steering_model(PROMPTS, fklit.steering.settings.SteeringSettings(reward=count_a))
    state, draws = one.initial(2, 5, None), torch.Generator().manual_seed(0)
    for t in range(one.num_steps):
        before = state.tokens
        state, _ = one.step(state, t, torch.zeros(2, 5), draws)
        assert torch.equal(state.unmasked_at == t, before != state.tokens)
    assert torch.equal(state.unmasked_at == -1, one.start[:, None].expand(2, 5, 7) != model.mask)


def test_predicted_texts_are_those_of_the_slots_before_resampling(folder):
    result = steered(folder, ess_threshold=1.0, pipeline_kwargs={"num_draws": 1})
    assert len(result.predictions) == len(result.scored_steps) == len(result.reward_path)
    for texts, rewards in zip(result.predictions, result.reward_path, strict=True):
        assert [count_a(row) for row in texts] == rewards.tolist()
    assert result.record(1)["predictions"] == [rows[1] for rows in result.predictions]
    without = steered(folder, previews=False)
    assert without.predictions is None and without.details is None and without.record(0)["predictions"] is None
    assert without.items == steered(folder).items


def test_the_report_shows_texts(folder, tmp_path):
    base, fk = tmp_path / "base", tmp_path / "fk"
    run(folder, base, potential="terminal")
    run(folder, fk, Report(base=str(base), best_of_n=str(base)))
    write_scores(fk, "judge", {0: [1.0, 0.0, 1.0]})
    page = (fk / "report.html").read_text()
    parse(fk / "report.html")
    plain = re.sub(r"<[^>]*>", "", page)
    for record in read_run(fk).records.values():
        for sample in read_texts(record):
            assert sample.text in plain and sample.colored
    assert 'class="given"' in page and re.search(r'class="token" style="--when:[01]\.\d\d" title="step \d"', page)
    assert "<img" not in page and page.count('<div class="method">') == 3 * len(PROMPTS) and "<svg" in page
    assert plain.count(read_run(fk).records[0].raw["predictions"][0][0])


def test_tensorboard_shows_texts(folder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(folder, tmp_path, TensorBoardParticles())
    reader = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    reader.Reload()
    (found,) = reader.Tensors("00001/texts/text_summary")
    table = found.tensor_proto.string_val[0].decode()
    lines = (tmp_path / "00001" / "texts.jsonl").read_text().splitlines()
    assert all(json.loads(line)["text"] in table for line in lines) and table.count("**") == 2
    assert "00001/lineages" in reader.Tags()["images"] and "00001/images" not in reader.Tags()["images"]


def test_a_run_goes_on_and_samples_damaged_texts_again(folder, tmp_path):
    run(folder, tmp_path)
    kept = (tmp_path / "00000" / "texts.jsonl").read_bytes()
    whole = (tmp_path / "00001" / "texts.jsonl").read_bytes()
    assert run(folder, tmp_path).source.is_loaded is False
    (tmp_path / "00001" / "texts.jsonl").write_bytes(whole[:-20])
    with pytest.warns(DamagedResultWarning, match=r"texts\.jsonl has another checksum"):
        run(folder, tmp_path)
    assert (tmp_path / "00001" / "texts.jsonl").read_bytes() == whole
    assert (tmp_path / "00000" / "texts.jsonl").read_bytes() == kept


def test_missing_and_damaged_texts_are_named(folder, tmp_path):
    run(folder, tmp_path)
    record = read_run(tmp_path).records[0]
    (tmp_path / "00000" / "texts.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"expected 3 texts, got 1 in .*texts\.jsonl; run the same command again"):
        read_texts(record)
    (tmp_path / "00000" / "texts.jsonl").write_text("[")
    with pytest.raises(ValueError, match=r"expected texts, got .*texts\.jsonl, which is damaged"):
        read_texts(record)
    (tmp_path / "00000" / "texts.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected texts\.jsonl in .*, got no such file"):
        read_texts(record)
    assert parse_record(record.raw).modality == "text"
