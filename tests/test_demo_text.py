"""The demo of text steering on a tiny model, and its command line on the shipped one."""

import io
import json
import re

import pytest
import torch
from rich.console import Console

from fklit.demo.text import MaskedLikelihood, main, print_table
from fklit.demo.text_comparison import TextDemo, TextDemoSettings
from fklit.report.reading import read_run
from fklit.rewards import Function
from fklit.text import DiffusionTransformer, MaskedTextSource, TransformerSettings, save_folder
from fklit.text.words import build_tokenizer


def count_a(texts):
    return [float(text.count("a")) for text in texts]


def count_b(texts):
    return [float(text.count("b")) for text in texts]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcd"]).save_pretrained(root / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=8, layers=1, heads=2))
    save_folder(network, root / "tokenizer", root / "model")
    settings = TextDemoSettings(num_particles=3, length=6, num_steps=6, num_draws=2, reward_scale=2.0, max_batch=4)
    made = TextDemo(
        MaskedTextSource(str(root / "model")), Function(count_a), Function(count_b), ["a", "b", "c d", "a a", "d"],
        settings,
    )  # fmt: skip
    steps = []
    return root / "out", made, made.run(root / "out", advance=lambda: steps.append(1)), steps


def test_figures_are_those_of_the_records(demo):
    output, made, metrics, steps = demo
    assert json.loads((output / "metrics.json").read_text()) == metrics and len(steps) == 2 * made.num_calls == 4
    best_of_n, fk = (read_run(output / name).records.values() for name in ("best_of_n", "fk"))
    chosen = [float(record.rewards.max()) for record in fk]
    assert metrics["fk"]["reward_best"] == pytest.approx(sum(chosen) / 5)
    judged = [float(record.scores["judge"][record.chosen]) for record in best_of_n]
    assert metrics["best_of_n"]["judge_mean"] == pytest.approx(sum(judged) / 5)
    assert metrics["base"]["denoiser_calls"] == metrics["best_of_n"]["denoiser_calls"]
    assert set(metrics["fk_less"]) == {"base", "best_of_n"} and (output / "report.html").stat().st_size > 10_000


def test_the_table_fits_and_names_the_judge(demo):
    console = Console(record=True, width=80, file=io.StringIO())
    print_table(demo[2], console)
    text = console.export_text()
    assert "count_b" in text and "…" not in text and re.search(r"FK steering\s+\d\.\d\d ± \d\.\d\d", text)


def test_the_masked_model_judges_real_order_above_shuffled_words():
    judge = MaskedLikelihood(draws=8)
    real, shuffled = judge([
        "The king said to the people of the land, Go up to the city.",
        "people The to city land the, of king the said. up Go the to",
    ]).tolist()  # fmt: skip
    assert -5 < real < -1 and shuffled < real - 1


@pytest.mark.slow
def test_the_command_runs_as_it_ships(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the king\nmy son,\n")
    main(["--output", str(tmp_path / "out"), "--prompts", str(prompts), "--particles", "2", "--steps", "6"])
    assert "FK steering less best of n" in capsys.readouterr().out
