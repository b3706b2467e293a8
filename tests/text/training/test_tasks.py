"""Both trainings on a language of four words: what they learn, write, and go on from."""

import math

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from fklit.text import (
    LogLinearSchedule,
    MaskedDiffusionTask,
    TextDataModule,
    TransformerSettings,
    load_folder,
    save_folder,
)
from fklit.text.training.causal import CausalLanguageModelTask
from fklit.text.training.export import main as export
from fklit.text.words import build_tokenizer, build_vocabulary

LINE = "a b c d."  # the next word is always known


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    build_tokenizer(build_vocabulary([LINE], 9)).save_pretrained(folder / "tokenizer")
    for name in ("train.txt", "held_out.txt"):
        (folder / name).write_text("\n\n".join(["\n".join([LINE] * 12)] * 4))
    return folder


def masked(data, **given):
    network = TransformerSettings(vocab_size=12, width=16, layers=1, heads=2, dropout=0.0)
    settings = {"warmup_steps": 2, "adamw_learning_rate": 1e-2} | given
    return MaskedDiffusionTask(str(data / "tokenizer"), network, **settings)


def causal(data, **given):
    settings = {"width": 16, "layers": 1, "heads": 2, "max_length": 16, "dropout": 0.0, "learning_rate": 1e-2} | given
    return CausalLanguageModelTask(str(data / "tokenizer"), 12, warmup_steps=2, **settings)


def trainer(folder, steps, callbacks=()):
    return Trainer(
        max_steps=steps,
        val_check_interval=5,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        gradient_clip_val=1.0,
    )


def module(data):
    return TextDataModule(str(data), 8, length=10)


@pytest.mark.parametrize(
    ("optimizer", "steps", "reaches"),
    [
        ("adamw", 60, 1.5),
        pytest.param("adamw", 400, 0.8, marks=pytest.mark.slow),
        pytest.param("muon", 300, 0.4, marks=pytest.mark.slow),
    ],
)
def test_masked_training_learns_and_writes_a_folder(data, tmp_path, optimizer, steps, reaches):
    seed_everything(0)
    rates = {"learning_rate": 0.02 if optimizer == "muon" else 1e-2}
    task = masked(data, optimizer=optimizer, export_dir=str(tmp_path / "model"), **rates)
    run = trainer(tmp_path, steps)
    run.fit(task, module(data))
    # Guesses over the 5 tokens cost log 5 = 1.6 nats each; of a known language only the first of ten does.
    found = float(run.callback_metrics["val/nelbo"])
    assert 0.05 < found < reaches
    # Ten tokens stand for two lines of eight characters, with the spaces after them.
    expected = found * 10 / 18 / math.log(2)
    assert float(run.callback_metrics["val/bits_per_character"]) == pytest.approx(expected, rel=1e-5)
    network, tokenizer = load_folder(tmp_path / "model")
    tokens = torch.tensor([tokenizer("a b c d. a b", add_special_tokens=False).input_ids])
    tokens[0, 2] = tokenizer.mask_token_id
    if steps > 60:
        assert tokenizer.decode(network(tokens)[0, 2].argmax()) == "c"


def test_causal_training_learns_and_writes_a_folder_of_transformers(data, tmp_path):
    seed_everything(0)
    task = causal(data, export_dir=str(tmp_path / "guide"))
    run = trainer(tmp_path, 60)
    run.fit(task, module(data))
    assert float(run.callback_metrics["val/loss"]) < 0.2
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "guide", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "guide")
    ids = torch.tensor([tokenizer("a b c d. a b").input_ids])
    with torch.no_grad():
        # float16 weights; the start token is part of the text
        theirs = model(ids, labels=ids).loss
        ours = task.eval().losses(ids[:, 1:]).mean()
    assert float(theirs) == pytest.approx(float(ours), abs=2e-3)
    assert model.config.bos_token_id == tokenizer.bos_token_id


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_killed_training_goes_on_and_checkpoints_hold_the_average(data, tmp_path):
    def run(folder, steps, path=None):
        seed_everything(0)
        saved = ModelCheckpoint(folder / "checkpoints", filename="best", monitor="val/nelbo", save_last=True)
        task = masked(data)
        trainer(folder, steps, [EMAWeightAveraging(decay=0.5), saved]).fit(task, module(data), ckpt_path=path)
        return task

    run(tmp_path, 10)
    task = run(tmp_path, 20, str(tmp_path / "checkpoints" / "last.ckpt"))
    loaded = MaskedDiffusionTask.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    for average, final in zip(loaded.parameters(), task.parameters(), strict=True):
        torch.testing.assert_close(average, final)
    export(["masked", str(tmp_path / "checkpoints" / "best.ckpt"), str(tmp_path / "folder")])
    network, _ = load_folder(tmp_path / "folder")
    assert network.settings.width == 16


def test_training_starts_from_a_folder(data, tmp_path):
    torch.manual_seed(1)
    first = masked(data)
    save_folder(first.network, data / "tokenizer", tmp_path / "first", dtype=torch.float32)
    torch.manual_seed(2)
    second = masked(data, start_from=str(tmp_path / "first"))
    second.setup("validate")
    assert not torch.equal(second.network.embedding.weight, first.network.embedding.weight)
    second.setup("fit")
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


def test_a_start_that_does_not_fit_is_refused(data, tmp_path):
    save_folder(masked(data).network, data / "tokenizer", tmp_path / "first")
    wider = TransformerSettings(vocab_size=12, width=32, layers=1, heads=2)
    with pytest.raises(ValueError, match=r"expected the model in .* to have the network's settings"):
        MaskedDiffusionTask(str(data / "tokenizer"), wider, start_from=str(tmp_path / "first")).setup("fit")
    build_tokenizer(build_vocabulary(["e f g h."], 9)).save_pretrained(tmp_path / "other")
    save_folder(masked(data).network, tmp_path / "other", tmp_path / "second")
    with pytest.raises(ValueError, match="to have the tokens of"):
        masked(data, start_from=str(tmp_path / "second")).setup("fit")
    with pytest.raises(FileNotFoundError, match="expected a masked model in"):
        masked(data, start_from=str(tmp_path / "nothing")).setup("fit")


@pytest.mark.parametrize("conditioned", [False, True])
def test_both_maskings_have_one_mean_and_counts_vary_less(data, conditioned):
    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(data / "tokenizer")("a b c d.", add_special_tokens=False).input_ids
    tokens = torch.tensor(words)[torch.randint(len(words), (64, 10))]
    batch = {"tokens": tokens, "characters": torch.full((64,), 18)}
    if conditioned:
        batch["given"] = (torch.arange(10) < 3).expand(64, -1)
    means, errors = [], []
    for masking in ("times", "counts"):
        task = masked(data, masking=masking)
        torch.nn.init.normal_(task.network.embedding.weight, generator=torch.Generator().manual_seed(1))
        task.setup("validate")
        task.log = lambda *args, **kwargs: None
        with torch.no_grad():
            losses = torch.stack([task.training_step(batch, 0) for _ in range(400)]).double()
        means.append(float(losses.mean()))
        errors.append(float(losses.std()) / len(losses) ** 0.5)
    assert abs(means[0] - means[1]) < 4 * math.hypot(*errors)
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("masking", ["times", "counts"])
def test_a_text_that_is_given_whole_adds_nothing(data, masking):
    """Its bound is 0, and those of the other texts are what they are without it."""
    task = masked(data, masking=masking)
    task.setup("validate")
    seen = {}
    task.log = lambda name, value, **more: seen.update({name: (float(value.detach()), more.get("batch_size"))})
    batch = {"tokens": torch.full((4, 6), 5), "characters": torch.full((4,), 6)}
    batch["given"] = torch.arange(6) < torch.tensor([[6], [4], [6], [5]])
    loss = task.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)
    task.validation_step(batch, 0)
    assert seen["val/nelbo"][1] == 3 and math.isfinite(seen["val/nelbo"][0])
    batch["given"] = torch.ones(4, 6, dtype=torch.bool)
    assert float(task.training_step(batch, 0).detach()) == 0.0
    task.validation_step(batch, 0)
    assert seen["val/nelbo"][0] == 0.0


@pytest.mark.slow
def test_masked_training_by_counts_learns(data, tmp_path):
    seed_everything(0)
    run = trainer(tmp_path, 400)
    run.fit(masked(data, optimizer="adamw", learning_rate=1e-2, masking="counts"), module(data))
    assert 0.05 < float(run.callback_metrics["val/nelbo"]) < 0.8


def test_validation_repeats_exactly(data, tmp_path):
    task = masked(data)
    run = trainer(tmp_path, 1)
    first = run.validate(task, module(data), verbose=False)
    torch.manual_seed(5)
    assert run.validate(task, module(data), verbose=False) == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": 0.0}, "expected learning rates above 0"),
        ({"smallest_time": 1.0}, "expected smallest_time in"),
        ({"optimizer": "sgd"}, "expected optimizer as muon or adamw"),
        ({"masking": "tokens"}, "expected masking as times or counts, got 'tokens'"),
        ({"masking": "counts", "schedule": LogLinearSchedule()}, "expected no schedule with masking='counts'"),
    ],
)
def test_numbers_out_of_range_are_refused(data, given, message):
    with pytest.raises(ValueError, match=message):
        masked(data, **given)


def test_tokenizers_that_do_not_fit_are_refused(data):
    task = MaskedDiffusionTask(str(data / "tokenizer"), TransformerSettings(vocab_size=5, width=8, layers=1, heads=2))
    with pytest.raises(ValueError, match="at most the network's 5 tokens, got 9"):
        task.setup("fit")
    with pytest.raises(ValueError, match="at most 5 tokens, got 9"):
        CausalLanguageModelTask(str(data / "tokenizer"), 5, width=8, layers=1, heads=2).setup("fit")
