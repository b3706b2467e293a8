"""A text model as the source of `SteeringTask`, in Python and by class path."""

import pytest
import torch
from lightning.pytorch import Trainer
from steering_rewards import TwiceAsLikely

import fklit
from fklit.callbacks import MetricsCallback
from fklit.data import PromptDataModule
from fklit.metrics import RewardMetric
from fklit.rewards import Function
from fklit.steering.task import SteeringTask
from fklit.text import DiffusionTransformer, MaskedTextSource, TextSampling, TransformerSettings, save_folder
from fklit.text.words import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcd"]).save_pretrained(root / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=8, layers=1, heads=2))
    save_folder(network, root / "tokenizer", root / "model")
    return root / "model"


def count_a(texts):
    return [float(text.count("a")) for text in texts]


def length(texts):
    return [float(len(text)) for text in texts]


def task(folder, **given):
    source = MaskedTextSource(str(folder), sampling=TextSampling(length=6, num_steps=5, num_draws=2))
    return SteeringTask(source, reward=count_a, reward_scale=2.0, num_particles=3, max_batch=4, **given)


def trainer(folder, **given):
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, **given,
    )  # fmt: skip


def test_predict_gives_what_steer_gives(folder, tmp_path):
    found = trainer(tmp_path).predict(task(folder), PromptDataModule(prompts=["a", "b c"], batch_size=2))
    model = MaskedTextSource(str(folder), sampling=TextSampling(length=6, num_steps=5, num_draws=2)).pipeline
    alone = fklit.steer(
        model, "b c", reward=count_a, reward_scale=2.0, num_particles=3, max_batch=4, prompt_indices=[1]
    )  # fmt: skip
    assert found[0].items[1] == alone.items[0]
    assert torch.equal(found[0].log_weights[1:], alone.log_weights)


def test_test_reports_rewards_and_cost(folder, tmp_path):
    prompts = PromptDataModule(prompts=["a", "b c"], batch_size=2)
    (figures,) = trainer(tmp_path).test(task(folder), prompts, verbose=False)
    assert figures["test/reward_best"] >= figures["test/reward_mean"] > 0 and figures["test/denoiser_calls"] > 0


def test_rewards_of_texts_are_metrics(folder, tmp_path):
    metrics = MetricsCallback({"letters": RewardMetric(Function(length))}, by=None)
    data = PromptDataModule(prompts=["a", "b c", "a b"], batch_size=2)
    (figures,) = trainer(tmp_path, callbacks=[metrics]).test(task(folder), data, verbose=False)
    found = trainer(tmp_path).predict(task(folder), data)
    texts = [
        row[slot] for result in found for row, slot in zip(result.items, result.best_index().tolist(), strict=True)
    ]
    assert figures["test/letters"] == pytest.approx(sum(len(text) for text in texts) / 3)
    assert figures["test/steered/reward"] == pytest.approx(figures["test/reward_best"])
    gain = figures["test/steered/letters"] - figures["test/base/letters"]
    assert figures["test/gain/letters"] == pytest.approx(gain, abs=1e-6)


def test_settings_follow_the_files_and_the_sampling(folder):
    one, other = task(folder), task(folder)
    assert one.settings() == other.settings()
    other.source.sampling = TextSampling(length=7)
    assert one.settings() != other.settings()
    proposing = MaskedTextSource(one.source.path, sampling=one.source.sampling, proposal=TwiceAsLikely(5))
    assert proposing.settings() != one.source.settings() and proposing.build().proposal is proposing.proposal
    assert not one.source.is_loaded and one.modality == "text"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layout": "gpt"}, "expected layout as one of fklit, mdlm, masked_lm"),
        ({"tokenizer": "gpt2"}, "expected a tokenizer with layout='mdlm' only"),
        ({"revision": "main"}, "expected a revision of a model on the hub"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MaskedTextSource("folder", **given)
