import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


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
