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


def test_the_tables_are_those_of_the_stored_results(modules):
    results = json.loads((ROOT / "docs" / "results" / "science.json").read_text())
    assert modules[1].molecules_table(results) in (ROOT / "docs" / "molecules.md").read_text()
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
# A network of twenty steps puts particles too close.
@pytest.mark.filterwarnings("ignore:.* samples were moved by none")
def test_it_runs_and_resumes(modules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    words = ["--quick", "--output", str(tmp_path / "out")]
    found = modules[0].main(words)
    cells = (tmp_path / "out" / "quick.lj.cells.jsonl").read_text().splitlines()
    assert {"lj5 T=1.5", "harmonic T=1.5", "mixture beta=2"} <= set(found["summary"]["lj"])
    arms = {"heuristic", "corrected", "corrected, Euler-Maruyama", "corrected, polished", "parallel tempering", "floor"}
    assert arms <= set(found["summary"]["lj"]["lj5 T=1.5"])
    again = modules[0].main(words)
    assert again["summary"] == found["summary"]
    assert (tmp_path / "out" / "quick.lj.cells.jsonl").read_text().splitlines() == cells


@pytest.mark.slow
def test_the_molecules_run_and_resume(modules, tmp_path, monkeypatch):
    pytest.importorskip("rdkit")
    pytest.importorskip("selfies")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    words = ["--only", "molecules", "--quick", "--output", str(tmp_path / "out")]
    words += ["--conditions", "oxygens=high", "heavy_atoms=low"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "quick.json").write_text(json.dumps({"summary": {"lj": {"kept": 1}}}))
    found = modules[0].main(words)
    (cells,) = (tmp_path / "out").glob("quick.molecules.*.cells.jsonl")
    lines = cells.read_text().splitlines()
    assert len(lines) == 2 * 15
    assert found["summary"]["lj"] == {"kept": 1}
    summary = found["summary"]["molecules"]
    for name in ("product_less_heuristic", "product_less_best_of_n"):
        for figure in (name, f"learned_{name}"):
            mean, low, high = summary[figure]
            assert low <= mean <= high
    arms = {row["arm"]: row["figures"] for row in found["rows"]["molecules"]}
    for arm in ("weighted product of counts", "weighted, both counts in one expert"):  # one condition of the network
        assert arms[arm]["calls"][0] < 1.2 * arms["unconditioned"]["calls"][0]
    # Three experts, or three times as many molecules, ask for as many rows; copies of a text are asked for once.
    assert arms["weighted product"]["calls"][0] == pytest.approx(arms["best of n"]["calls"][0], rel=0.1)
    assert modules[0].main(words)["summary"] == found["summary"]
    assert cells.read_text().splitlines() == lines


def test_bootstrap_intervals(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bootstrap = importlib.import_module("science_molecules").bootstrap
    assert bootstrap([0.25, 0.25, 0.25]) == [0.25, 0.25, 0.25]
    mean, low, high = bootstrap([0.0, 1.0] * 50)
    assert mean == 0.5 and low == pytest.approx(0.4, abs=0.02) and high == pytest.approx(0.6, abs=0.02)


def test_weights_help_a_product_the_more_the_sharper_its_conditions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    exact = importlib.import_module("conditions_exact")
    sharp, soft = exact.measured(2, 3, 0.0), exact.measured(2, 3, 0.3)
    assert sharp["target"] == pytest.approx(1.0) and sharp["heuristic"] < 0.6
    assert 0 < soft["target"] - soft["heuristic"] < 0.01
    rows = json.loads((ROOT / "docs" / "results" / "conditions_exact.json").read_text())
    assert rows[4] == pytest.approx(sharp) and rows[7] == pytest.approx(soft)
    assert exact.table(rows) in (ROOT / "docs" / "molecules.md").read_text()


def test_the_heuristic_law_is_exact_for_one_condition(monkeypatch):
    """Without a second condition nothing is mixed: its law is that of the expert, in any order."""
    import torch

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    exact = importlib.import_module("conditions_exact")
    base = torch.full((243,), 1 / 243, dtype=torch.float64)
    first = exact.conditioned(base, exact.TEXTS[:, 0] == 1, 0.1)
    torch.testing.assert_close(exact.heuristic(base, first, base), first)
