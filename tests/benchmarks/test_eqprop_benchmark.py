import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_files import write_fashion_mnist

from fklit.eqprop import MLP

FOLDER = Path(__file__).parents[2] / "benchmarks"
DOCS = FOLDER.parent / "docs"


@pytest.fixture(autouse=True)
def neighbors(monkeypatch):
    """Files beside a benchmark that it imports, as when it runs as a script."""
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*profiler.*")
def test_all_methods_have_the_same_gradient(tmp_path):
    """The naive loop is the same arithmetic written another way, so its errors are those of the fast one."""
    small = ["--channels", "3", "4", "5", "--conv-batch", "2", "--hidden", "12", "10", "--mlp-batch", "3"]
    report = load("eqprop").main([*small, "--free", "12", "--nudged", "12", "--output", str(tmp_path / "r.json")])
    assert json.loads((tmp_path / "r.json").read_text()) == report
    for name in ("conv 3-4-5", "mlp 784-12-10-10"):
        methods, ratios = report[name]["methods"], report[name]["ratios"]
        error = {key: entry["gradient_error"] for key, entry in methods.items() if "gradient_error" in entry}
        for n in (2, 4):
            assert error[f"N={n} equal"] == pytest.approx(error[f"(a) naive N={n}"], rel=0.05, abs=2e-5)
        assert error["N=4 converged"] < 3e-3 and error["N=2 converged"] < 0.05 and error["(b) unrolled"] < 1e-2
        assert error["complex step converged"] < 1e-3
        assert ratios["memory of N=2, twice the free iterations"] == pytest.approx(1, abs=0.02)
        # In so small an MLP the gradients need more than the recorded states.
        assert ratios["memory of unrolled, twice the iterations"] > 1.5 or name.startswith("mlp")
        assert all(value > 0 for value in ratios.values())
        assert methods["N=4 equal"]["iterations"] == {"free": 12, "nudged": 12}


def test_the_table_of_homeostasis_runs_once(tmp_path, monkeypatch, capsys):
    module = load("homeostasis")
    asked = []

    def run(command):
        asked.append(command)
        lost = "null" in command
        keys = ("alignment/error/l1", "alignment/gradient/links.input-l1.forward_weight", "alignment/symmetry")
        rest = {"val/top1": 0.5, "val/unconverged": 0.0, "alignment/error/out": 1.0, "cpu_seconds": 3.0}
        return dict.fromkeys(keys, 0.25 if lost else 0.75 + len(asked) / 1000) | rest

    monkeypatch.setattr(module, "run", run)
    words = ["digits", "--seeds", "2", "--output", str(tmp_path), "--", "--trainer.max_epochs", "2"]
    records = module.main(words)
    table = capsys.readouterr().out
    assert len(asked) == len(records) == 2 * len(module.EXPERIMENTS["digits"].variants)
    assert asked[0][-2:] == ["--trainer.max_epochs", "2"] and "| EP | 2 | 50.0 ± 0.0 | 0.25 ± 0.00 |" in table
    module.main(words)
    assert capsys.readouterr().out == table and len(asked) == len(records)
    module.main(["forms", *words[1:]])  # shares the runs of its first form
    assert len(asked) == len(records) + 2 * (len(module.EXPERIMENTS["forms"].variants) - 1)
    module.main(["digits", "--dry"])
    assert "--model.homeostasis null" in capsys.readouterr().out


def test_multiply_adds_are_those_of_the_convolutions():
    """By hand: three convolutions of each of the three links between layers, and none of the others."""
    module = load("eqprop_kernels")
    found = module.multiply_adds((4, 6, 8, 10), probes=1)
    pairs = [(16, 4, 6), (8, 6, 8)]  # side, channels below and above, padded
    links = sum(side**2 * below * above * 9 for side, below, above in pairs) + 2**2 * 8 * 10 * 9
    assert found["drive"] == 32**2 * 3 * 4 * 9
    assert found["free iteration"] == found["response iteration"] == 3 * links
    assert found["linearization"] == 5 * links  # slopes, and the convolution of both directions
    twice = module.multiply_adds((4, 6, 8, 10), probes=2)["homeostatic loss"] - found["homeostatic loss"]
    assert 0 < twice < found["homeostatic loss"]


def test_hours_are_the_longer_of_computing_and_launching():
    module = load("eqprop_kernels")
    macs = {"drive": 0.0, "linearization": 0.0, "local gradients": 0.0, "homeostatic loss": 3600e6}
    macs |= {"free iteration": 1e6, "response iteration": 1e6}
    given = module.Assumptions(10, 2, 0, 4, rate_low=4e12, rate_full=1e12, launch=1e-6, batch=100, kernels=50)
    found = module.hours(macs, given)
    per_hour = module.IMAGES / 3600
    assert found["free phase, half precision"] == pytest.approx(per_hour * 10 * 50e-6 / 100)  # 0.5 us against 0.25
    assert found["free phase, float32"] == pytest.approx(per_hour * 2 * 1e-6)
    assert found["gradients and homeostatic loss"] == pytest.approx(per_hour * 3600e6 / 1e12)
    assert found["total"] == pytest.approx(sum(value for name, value in found.items() if name != "total"))


@pytest.mark.slow
def test_kernels_are_counted(tmp_path, capsys):
    module = load("eqprop_kernels")
    report = module.main(["--channels", "2", "3", "4", "4", "--output", str(tmp_path / "r.json")])
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(report))
    counts = {name: part["total"] for name, part in report["kernels"].items()}
    assert counts["free"] <= 114 and counts["exact response"] <= 115 and counts["homeostatic loss, a step"] <= 543
    assert "| free | 1" in capsys.readouterr().out
    with module.KernelCounter() as counter:
        x = torch.ones(2, 3)
        x.view(3, 2).T[0].add_(1)  # views are none
    assert dict(counter.counts) == {"ones": 1, "add_": 1}


@pytest.mark.slow
def test_bfloat16_leaves_a_linear_response_and_no_small_nudge(tmp_path):
    words = ["--seeds", "1", "--steps", "0", "--samples", "4", "--output", str(tmp_path / "r.json")]
    (run,) = load("eqprop_precision").main(words)["runs"]
    for number_format in ("bfloat16 autocast", "bfloat16 states"):
        assert run["exact response"][number_format]["cosine_recurrent"] > 0.99
        assert run["N = 2, beta 0.1"][number_format]["cosine_recurrent"] < 0.95
    assert run["exact response"]["TF32"]["distance"] < 1e-3


def epoch_lines(folder, cell, seed, errors):
    """Lines as `EpochLog` writes them, for errors of some epochs."""
    target = folder / cell / str(seed)
    target.mkdir(parents=True)
    keys = (
        *("alignment/error/l1", "alignment/error/l2", "alignment/symmetry"),
        *("alignment/gradient/links.input-l1.forward_weight", "val/unconverged"),
    )
    lines = [
        {"epoch": epoch, "cpu_seconds": 1800.0, "val/top1": 1 - error / 100} | dict.fromkeys(keys, 0.25)
        for epoch, error in errors
    ]
    (target / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_of_the_paper_go_on_in_stages_and_are_compared_at_equal_epochs(tmp_path, capsys, monkeypatch):
    module = load("eqprop_paper")
    monkeypatch.setattr(module, "STAGES", (2, 4))
    epoch_lines(tmp_path, "n6", 0, [(1, 20.0), (2, 16.0), (2, 15.0), (3, 14.0)])  # the second ran twice
    epoch_lines(tmp_path, "n6", 1, [(1, 22.0), (2, 17.0)])
    todo = list(module.work(tmp_path, ["n6", "exact_90"], 4))
    first, later = [("exact_90", 0, 2), ("n6", 2, 2)], [("n6", 0, 4), ("exact_90", 0, 4), ("n6", 1, 4), ("n6", 2, 4)]
    assert todo == first + later  # all to 2 epochs before any to 4
    found = module.main(["--minutes", "0", "--folder", str(tmp_path), "--output", str(tmp_path / "r.json")])
    (written,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    (row,) = found
    assert written.pop("by")["fklit"] and written == row
    assert (row["seeds"], row["epochs"], row["published_error"]) == (2, 2, 14.3)
    assert row["figures"]["error"] == pytest.approx([16.0, 1.0])
    assert row["curves"]["error"] == [[20.0, 15.0], [22.0, 17.0]]
    assert row["cpu_hours"] == 2.0 and "16.0 ± 1.0" in capsys.readouterr().out


def test_a_file_keeps_the_rows_of_other_machines_until_there_are_better_ones(tmp_path, capsys):
    module = load("eqprop_paper")
    asked = ["--minutes", "0", "--output", str(tmp_path / "r.json")]
    here, there = tmp_path / "here", tmp_path / "there"
    epoch_lines(here, "n2", 0, [(1, 20.0), (2, 16.0)])
    epoch_lines(here, "n6", 0, [(1, 20.0)])
    module.main([*asked, "--folder", str(here)])
    epoch_lines(there, "n2", 0, [(1, 10.0)])  # fewer epochs, if of more seeds
    epoch_lines(there, "n2", 1, [(1, 10.0)])
    epoch_lines(there, "n6", 0, [(1, 10.0)])  # as many
    epoch_lines(there, "exact", 0, [(1, 30.0)])
    module.main([*asked, "--folder", str(there)])
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [(row["cell"], row["figures"]["error"][0]) for row in rows] == [
        ("n2", pytest.approx(16.0)),
        ("n6", pytest.approx(10.0)),
        ("exact", pytest.approx(30.0)),
    ]
    with pytest.raises(SystemExit, match=r"expected \[\] after --, as in .*r.json, got \['--data.num_train', '500'\]"):
        module.main([*asked, "--folder", str(tmp_path / "other"), "--", "--data.num_train", "500"])


def test_a_run_that_failed_is_not_begun_again_and_the_others_are(tmp_path, monkeypatch):
    module = load("eqprop_paper")
    monkeypatch.setattr(module, "STAGES", (1, 2))
    begun = []

    def fail_the_first(words, **_):
        name = words[words.index("--trainer.default_root_dir") + 1].split("/")[-2]
        begun.append((name, words[words.index("--trainer.max_epochs") + 1]))
        return subprocess.CompletedProcess(words, int(name == "exact_0"))

    monkeypatch.setattr(module.subprocess, "run", fail_the_first)
    words = ["--folder", str(tmp_path), "--cells", "exact_0", "exact_45", "--epochs", "2", "--processes", "2"]
    with pytest.raises(SystemExit, match="fklit fit failed"):
        module.main(words)
    assert begun.count(("exact_0", "1")) == 1 and ("exact_0", "2") not in begun
    assert {("exact_45", "1"), ("exact_45", "2")} <= set(begun)


def test_the_page_of_the_paper_holds_the_table_of_its_json(tmp_path):
    page = load("eqprop_paper_page")
    rows = json.loads((DOCS / "results" / "eqprop_paper.json").read_text())["rows"]
    assert page.paper_table(rows) in (DOCS / "published-experiments.md").read_text()
    page.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_runs_of_other_words_are_not_counted(tmp_path):
    module = load("eqprop_paper")
    epoch_lines(tmp_path, "n6", 0, [(1, 20.0)])
    (tmp_path / "n6" / "0" / "words.json").write_text('["--data.num_train", "500"]')
    with pytest.raises(SystemExit, match=r"num_train.*got \[\]; give another --folder"):
        module.main(["--minutes", "0", "--folder", str(tmp_path)])


def test_commands_of_the_paper_are_all_of_the_issue(capsys):
    module = load("eqprop_paper")
    assert module.main(["--dry"]) == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines)) == 5 * 3 + 6
    assert all("--trainer.max_epochs 50" in line for line in lines)


@pytest.mark.slow
def test_a_run_of_the_paper_stops_and_goes_on(tmp_path):
    """Its time is over in the first epoch, which it ends; from there the weights after two are those of one call.

    Not compiled, which would take most of the time.
    """
    module = load("eqprop_paper")
    write_fashion_mnist(tmp_path / "data", size=100)
    asked = ["--cells", "exact_0", "--processes", "1", "--epochs", "2", "--data_dir", str(tmp_path / "data")]
    plain = ["--", "--model.network.execution", "null"]
    (row,) = module.main([*asked, "--minutes", "0.01", "--folder", str(tmp_path / "parts"), *plain])
    assert row["epochs"] == 1
    for folder in ("parts", "whole"):
        (row,) = module.main([*asked, "--minutes", "10", "--folder", str(tmp_path / folder), *plain])
        assert row["epochs"] == 2
    parts, whole = (
        torch.load(tmp_path / n / "exact_0" / "0" / "last.ckpt", weights_only=True) for n in ("parts", "whole")
    )
    assert parts["epoch"] == whole["epoch"]
    for name, weight in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][name], weight, rtol=0, atol=0)


def test_ways_to_the_fixed_point_are_compared_and_other_cells_stay(tmp_path):
    module = load("eqprop_trained")
    torch.manual_seed(0)
    network, before = MLP((8,), (6, 6), angle=90.0), MLP((8,), (6, 6), angle=90.0)
    x, y = torch.rand(6, 8), torch.arange(6)
    net = module.Trained(network, before, x, y, 3)
    cells = {"digits": {way: module.cell(net, way, repeats=1) for way in ("plain", "warm start")}}
    for found in cells["digits"].values():
        assert found["samples"] == 6 and found["unconverged"] == found["other_fixed_point"] == 0
        assert found["gradient_difference"] < 1e-8 and found["steps_of_feedforward"] > 0
    (tmp_path / "r.json").write_text(json.dumps({"cells": cells}))
    kept = module.trained([], [], None, tmp_path, output=tmp_path / "r.json")
    assert kept["cells"] == cells and set(kept["summary"]["all"]["digits"]) == {"plain", "warm start"}
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(SystemExit, match="expected figures of --trained"):
        module.trained([], [], None, tmp_path, output=tmp_path / "r.json")
