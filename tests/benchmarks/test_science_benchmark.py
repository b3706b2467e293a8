"""The benchmark of clusters runs as it is and resumes; the guide's table is that of the stored results."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("science"), importlib.import_module("science_tables")


def test_the_table_is_that_of_the_stored_results(modules):
    results = json.loads((ROOT / "docs" / "results" / "science.json").read_text())
    guide = (ROOT / "docs" / "clusters.md").read_text()
    assert modules[1].lj_table(results) in guide
    for arms in results["summary"]["lj"].values():
        if "heuristic" in arms:
            assert {"heuristic", "corrected", "floor"} <= set(arms)
            assert all(len(arms[name]) == 2 for name in arms)


def test_where_scores_are_exact_the_corrected_sampler_beats_the_heuristic(modules):
    summary = json.loads((ROOT / "docs" / "results" / "science.json").read_text())["summary"]["lj"]
    for system, arms in summary.items():
        if system.startswith(("harmonic", "mixture")):
            assert arms["corrected, control"][0] < arms["heuristic"][0], system


@pytest.mark.slow
def test_it_runs_and_resumes(modules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    words = ["--quick", "--output", str(tmp_path / "out")]
    found = modules[0].main(words)
    cells = (tmp_path / "out" / "quick.lj.cells.jsonl").read_text().splitlines()
    assert {"lj5 T=1.5", "harmonic T=1.5", "mixture beta=2"} <= set(found["summary"]["lj"])
    assert {"heuristic", "corrected", "corrected, Heun", "corrected, polished", "parallel tempering", "floor"} <= set(
        found["summary"]["lj"]["lj5 T=1.5"]
    )
    again = modules[0].main(words)
    assert again["summary"] == found["summary"]
    assert (tmp_path / "out" / "quick.lj.cells.jsonl").read_text().splitlines() == cells
