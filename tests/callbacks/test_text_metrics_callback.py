"""Metrics of texts attached to steering of a masked text model: what is logged is what the texts say."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from tiny_language_models import write_llama

from fklit.callbacks import MetricsCallback
from fklit.callbacks.metric_checks import check_start
from fklit.callbacks.same_model import SameModelWarning
from fklit.data import PromptDataModule
from fklit.metrics import AcceptanceRate, CLIPDiversity, Distinct, RewardMetric, SelfBLEU, TextPerplexity
from fklit.metrics.distinct import distinct_n
from fklit.metrics.texts import continuation, words
from fklit.rewards import LanguageModelLikelihood, RegexScore
from fklit.steering.task import SteeringTask
from fklit.text import DiffusionTransformer, MaskedTextSource, TextSampling, TransformerSettings, save_folder
from fklit.text.words import build_tokenizer

WORDS = ["<pad>", "<unk>", "<s>", "<mask>", "a", "b", "c", "d"]
PROMPTS = ["a", "b c", "a b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    build_tokenizer(WORDS).save_pretrained(root / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=8, layers=1, heads=2))
    save_folder(network, root / "tokenizer", root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("guide"), build_tokenizer(WORDS))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("judge"), build_tokenizer(WORDS), seed=1)


def task(folder, reward):
    source = MaskedTextSource(str(folder), sampling=TextSampling(length=6, num_steps=5, num_draws=2))
    return SteeringTask(source, reward=reward, num_particles=3, max_batch=4)


def trainer(folder, **given):
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, **given,
    )  # fmt: skip


def test_what_is_logged_is_what_the_texts_say(folder, guide, judge, tmp_path):
    metrics = MetricsCallback(
        {
            "perplexity": TextPerplexity(judge, given_prompt=True),
            "accepted": AcceptanceRate(RegexScore("d", output="count"), 1.0),
            "distinct": Distinct(),
            "alike": SelfBLEU(1),
        },
        by=None,
    )
    data = PromptDataModule(prompts=PROMPTS, batch_size=2)
    steered = task(folder, LanguageModelLikelihood(guide))
    (figures,) = trainer(tmp_path, callbacks=[metrics]).test(steered, data, verbose=False)
    found = trainer(tmp_path).predict(task(folder, LanguageModelLikelihood(guide)), data)
    texts = [row[slot] for result in found for row, slot in zip(result.items, result.best_index(), strict=True)]
    assert all(text.startswith(prompt) for text, prompt in zip(texts, PROMPTS, strict=True))
    logs = LanguageModelLikelihood(judge, output="sum", given_prompt=True)(texts, PROMPTS).tolist()
    counts = [6 - len(prompt.split()) for prompt in PROMPTS]  # tokens of a text, less those of its prompt
    each = [math.exp(-total / count) for total, count in zip(logs, counts, strict=True)]
    assert figures["test/perplexity"] == pytest.approx(sum(each) / 3, rel=1e-4)
    assert figures["test/perplexity/token_level"] == pytest.approx(math.exp(-sum(logs) / sum(counts)), rel=1e-4)
    assert figures["test/accepted"] == pytest.approx(sum("d" in text for text in texts) / 3)
    after = [words(continuation(text, prompt)) for text, prompt in zip(texts, PROMPTS, strict=True)]
    assert figures["test/distinct/corpus_2"] == pytest.approx(distinct_n(after, 2))
    assert 0 <= figures["test/alike"] <= 1
    # one unsteered sample of each prompt is measured beside it
    gain = figures["test/steered/perplexity"] - figures["test/base/perplexity"]
    assert figures["test/gain/perplexity"] == pytest.approx(gain, rel=1e-3)


def test_a_judge_that_guides_is_told_whatever_it_scores(folder, guide, tmp_path):
    metrics = MetricsCallback({"perplexity": TextPerplexity(guide, given_prompt=True, max_tokens=3)}, by=None)
    data = PromptDataModule(prompts=["a"])
    with pytest.warns(SameModelWarning, match="perplexity expected another model than the reward"):
        trainer(tmp_path, callbacks=[metrics]).test(
            task(folder, LanguageModelLikelihood(guide, output="sum")), data, verbose=False
        )


def test_metrics_of_other_samples_are_refused_before_the_run(folder, guide, tmp_path):
    class Texts(torch.nn.Module):
        modality, num_prompts, num_particles = "text", 3, 2

    class Images(Texts):
        modality = "image"

    for metric in (Distinct(), TextPerplexity(guide), SelfBLEU()):
        with pytest.raises(ValueError, match=r"x \(\w+\) measures text samples, expected a metric of image samples"):
            check_start("x", metric, Images(), world_size=1)
        check_start("x", metric, Texts(), world_size=1)
    with pytest.raises(ValueError, match=r"x \(CLIPDiversity\) measures image samples, expected a metric of text"):
        check_start("x", CLIPDiversity("ViT-B-32", "openai"), Texts(), world_size=1)
    with pytest.raises(ValueError, match="x expected a reward that scores image samples, got RegexScore, which"):
        check_start("x", RewardMetric(RegexScore("a")), Images(), world_size=1)
