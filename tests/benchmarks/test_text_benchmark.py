"""The benchmark of text steering: its statistics by enumeration, and a run of a few cells that resumes."""

import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fklit.rewards import Function
from fklit.text import DiffusionTransformer, MaskedTextModel, TextSampling, TransformerSettings, save_folder
from fklit.text.words import build_tokenizer

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the next parts look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells():
    return load("text_cells")


@pytest.fixture(scope="module")
def summary(cells):
    return load("text_summary")


@pytest.fixture(scope="module")
def speed():
    return load("text_speed")


def count_a(texts):
    return [float(text.count("a")) for text in texts]


def count_b(texts):
    return [float(text.count("b")) for text in texts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcd"]).save_pretrained(root / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=8, layers=1, heads=2))
    save_folder(network, root / "tokenizer", root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def plan(cells, folder):
    made = [
        cells.Attribute(name, lambda: Function(count_a), lambda: Function(count_b), 2.0)
        for name in ("fluency", "sentiment_up", "sentiment_down")
    ]
    return cells.Plan(
        arms=(cells.Arm("pool", 6), cells.Arm("fk", 4, 1), cells.Arm("fk", 4, 2), cells.Arm("gibbs", 2, 1, 1)),
        attributes=tuple(made), prompts=("a", "b c", "d"), continuations=2, seeds=(0, 1),
        sampling=TextSampling(length=6, num_steps=5), model=str(folder), rows=8,
    )  # fmt: skip


def test_best_of_n_is_the_mean_over_all_subsets(summary):
    generator = np.random.default_rng(0)
    rewards, values = generator.normal(size=7), generator.normal(size=7)
    for n in (1, 3, 7):
        chosen = [max(subset, key=lambda i: rewards[i]) for subset in itertools.combinations(range(7), n)]
        assert summary.best_of_n(rewards, values, n) == pytest.approx(np.mean([values[i] for i in chosen]))


def test_distinct_counts_n_grams(summary):
    assert summary.distinct(["a b a", "a b"], 1) == 2 / 5 and summary.distinct(["a b a", "a b"], 2) == 2 / 3
    assert np.isnan(summary.distinct(["a"], 2))


def test_a_run_resumes_and_its_figures_are_those_of_its_cells(cells, summary, plan, tmp_path):
    cells.run_cells(plan, tmp_path, shard=0, shards=2)
    half = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(half) == len(list(plan.units())) // 2 == 10
    with pytest.raises(FileNotFoundError):
        cells.read_cells(tmp_path, plan)
    cells.run_cells(plan, tmp_path)
    assert len(list(tmp_path.iterdir())) == 20
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in half.items())
    found = cells.read_cells(tmp_path, plan)
    table = summary.summarize(plan, found)
    json.dumps(table)
    rows = found[("K4, 2 draws", "fluency")]
    assert len(rows) == 3 * 2 * 2
    chosen = [max(count_a(row["texts"])) for row in rows]
    arm = table["table"]["fluency"]["K4, 2 draws"]
    assert arm["guide"] == pytest.approx(np.mean(chosen))
    judged = [float(row["texts"][row["chosen"]].count("b")) for row in rows]
    assert arm["judge"] == pytest.approx(np.mean(judged))
    base = table["table"]["fluency"]["base"]
    assert arm["less_base"][0] == pytest.approx(arm["guide"] - base["guide"])
    assert arm["equal_n"] >= 4 and arm["less_best_of_n"][0] <= arm["less_base"][0]
    headline = table["summary"]
    assert headline["fk_less_best_of_n"]["fluency"]["K4"] == arm["less_best_of_n"]
    assert headline["held_out"]["fluency"]["K4"] == arm["judge_less_base"]
    gaps = [table["table"][name]["K4, 2 draws"]["less_best_of_n"][0] for name in ("sentiment_up", "sentiment_down")]
    assert headline["fk_less_best_of_n"]["attribute"]["K4"][0] == pytest.approx(np.mean(gaps))


def test_an_attribute_that_is_asked_for_later_computes_only_its_own_cells(cells, plan, tmp_path):
    few = replace(plan, attributes=plan.attributes[:1])
    assert few.digest == plan.digest
    cells.run_cells(few, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    cells.run_cells(plan, tmp_path)
    changed = [name for name, time in before.items() if (tmp_path / name).stat().st_mtime_ns != time]
    assert sorted(changed) == [f"pool-k6-n1-s0-base-{seed}.json" for seed in (0, 1)]
    for cell in cells.read_cells(tmp_path, plan)[("pool", "base")]:
        assert cell["guide"] == dict.fromkeys(("fluency", "sentiment_up", "sentiment_down"), count_a(cell["texts"]))
        assert cell["judge"]["sentiment_up"] == count_b(cell["texts"])


def test_runs_of_a_prompt_differ_and_seeds_differ(cells, plan, tmp_path):
    cells.run_cells(plan, tmp_path)
    pool = cells.read_cells(tmp_path, plan)[("pool", "base")]
    runs = {tuple(cell["texts"]) for cell in pool if cell["prompt"] == "a"}
    assert len(runs) == 4


def test_every_prompt_is_of_the_vocabulary(cells):
    model = MaskedTextModel.from_folder("fklit:text_diffusion")
    assert model.encode(cells.PROMPTS, 32).shape == (35, 32) and len(set(cells.PROMPTS)) == 35


def test_speed_is_measured(speed, folder):
    saved = speed.calls_saved(60, 16, 2)
    assert saved["without"] == 120 and saved["calls"] <= 32 and saved["saved"] > 0.5
    model = MaskedTextModel.from_folder(folder)
    rate = speed.tokens_per_second(model, 3, TextSampling(length=6, num_steps=5))
    assert rate["fklit"] > 0 and rate["ratio"] == pytest.approx(rate["fklit"] / rate["plain"])
    assert speed.batched_scoring(Function(count_a), ["a", "b"])["ratio"] > 0


def test_the_plain_loop_samples_what_fklit_samples(speed, folder):
    """Both are the same law, which is seen in the mean number of one word."""
    model = MaskedTextModel.from_folder(folder, sampling=TextSampling(length=6, num_steps=5))
    plain = speed.plain_sampler(model, 3000, model.sampling, 0)
    assert not torch.isin(plain, torch.tensor([model.mask, *model.never])).any()
    ours = model.sample("", 3000, seed=1)[0]
    for word, number in (("a", 4), ("c", 6)):
        theirs = float((plain == number).double().sum(1).mean())
        mine = float(np.mean([text.split().count(word) for text in ours]))
        assert mine == pytest.approx(theirs, abs=0.12)
