"""The compatibility table: its page is its JSON, its JSON is what runs say, and nothing crashes or is wrong."""

import importlib
import json
import time
from pathlib import Path

import pytest
import torch
from tiny_families import rows

import fklit

ROOT = Path(__file__).parents[2]
QUICK = (
    "AmusedPipeline", "DDPMPipeline", "FluxControlNetPipeline", "FluxInpaintPipeline", "MarigoldDepthPipeline",
)  # fmt: skip

PARTS = 8  # so that processes share the work


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("compatibility")


@pytest.fixture(scope="module")
def report():
    return json.loads((ROOT / "docs" / "results" / "compatibility.json").read_text())


def test_the_page_is_made_from_the_json(benchmark, report):
    assert (ROOT / "docs" / "compatibility.md").read_text() == benchmark.render(report)


def test_every_class_that_diffusers_exports_is_a_row(benchmark, report):
    """After an update of diffusers, run benchmarks/compatibility.py again: new classes show as not tried."""
    assert [row["pipeline"] for row in report["rows"]] == list(benchmark.exported())
    tried = {row["pipeline"] for row in report["rows"] if row["verdict"] != "not tried"}
    assert tried == set(rows()) and report["counts"] == benchmark.counted(report["rows"])


def test_nothing_crashes_and_nothing_is_wrong(report):
    counts = report["counts"]
    assert set(counts) == {"steered", "best_of_n", "refused", "not_tried", "families_tried"}, "no crash, none wrong"
    assert counts["steered"] >= 40 and sum(list(counts.values())[:4]) == len(report["rows"])
    for row in report["rows"]:
        cells = row.get("cells", {})
        if row["verdict"] == "steered":
            assert [cells[name] for name in ("scale 0", "terminal", "steer", "idle", "previews", "clone")] == ["ok"] * 6
        elif row["verdict"] == "best of n":
            assert cells["terminal"] == "ok" and cells["steer"].startswith("refused: ") and len(row["reason"]) > 40
        elif row["verdict"] == "refused":
            assert cells["terminal"].startswith("refused: ") and row["pipeline"] in row["reason"]
        if row["verdict"] != "not tried":
            assert row["corrected"] != bool(row["correct_reason"]) and (
                row["pipeline"] in row["example"] or row["verdict"] == "refused"
            )


def _same(benchmark, report, names):
    recorded = {row["pipeline"]: row for row in report["rows"]}
    folders = benchmark.exported()
    torch.set_num_threads(1)
    for name in names:
        found = benchmark.try_row(rows()[name], folders[name])
        for key in ("verdict", "reason", "corrected", "example"):
            assert found[key] == recorded[name][key], (name, key)


def test_a_few_classes_give_the_recorded_verdict(benchmark, report):
    _same(benchmark, report, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_all_classes_give_the_recorded_verdict(benchmark, report, part):
    """By the cells that decide it; the benchmark runs all."""
    cells, tokens = (importlib.import_module(name) for name in ("compatibility_cells", "compatibility_tokens"))
    torch.set_num_threads(1)
    tried = [row for row in report["rows"] if row["verdict"] != "not tried" and row["pipeline"] not in QUICK]
    for row in tried[part::PARTS]:
        if rows()[row["pipeline"]].tokens:
            answers = tokens.run_token_cells(rows()[row["pipeline"]])
        else:
            answers = cells.run_cells(rows()[row["pipeline"]], ("terminal", "steer", "clone"))
        assert benchmark.verdict(answers) == (row["verdict"], row["reason"]), row["pipeline"]


def test_what_fklit_raises_is_a_refusal_and_all_else_a_crash(benchmark):
    cells = importlib.import_module("compatibility_cells")

    def wrong():
        raise cells.WrongError("1 is not 2")

    assert cells.answer(lambda: fklit.Schedule(start=5, stop=1)).startswith("refused: ValueError: start=5 is after")
    assert cells.answer(lambda: torch.zeros(2) + torch.zeros(3)).startswith("crash: RuntimeError: The size of")
    assert cells.answer(wrong) == "wrong: 1 is not 2"


def test_a_verdict_is_the_worst_that_a_cell_says(benchmark):
    fine = dict.fromkeys(("scale 0", "terminal", "steer", "idle", "previews", "clone", "correct"), "ok")
    refusal = "refused: UnsupportedPipelineError: it edits: latents"
    assert benchmark.verdict(fine) == ("steered", "")
    assert benchmark.verdict({**fine, "correct": refusal}) == ("steered", "")
    assert benchmark.verdict({**fine, "steer": refusal}) == ("best of n", "it edits: latents")
    assert benchmark.verdict({**fine, "steer": refusal, "terminal": refusal}) == ("refused", "it edits: latents")
    assert benchmark.verdict({**fine, "clone": "wrong: 1e-3"})[0] == "wrong"
    assert benchmark.verdict({**fine, "correct": "crash: KeyError: x"})[0] == "crash"


def test_a_row_that_takes_too_long_is_a_crash(benchmark):
    assert benchmark._within(1, lambda: time.sleep(5))["build"].startswith("crash: LateError: the row took more than")
