"""The guide's Python examples run as they stand, and what it names exists."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "equilibrium-propagation.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example {i + 1}" for i in range(len(EXAMPLES))])
def test_examples_run(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    exec(compile(example, "equilibrium-propagation.md", "exec"), names)
    weights = list(names["network"].parameters())
    assert "backward()" not in example or all(w.grad is not None for w in weights)


def test_the_table_of_probes_is_that_of_the_stored_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module("homeostasis")
    rows = json.loads((ROOT / "docs" / "results" / "homeostasis_conv_forms.json").read_text())
    assert benchmark.table(rows) in GUIDE
    variants = benchmark.EXPERIMENTS["conv_forms"].variants
    assert sorted({row["seed"] for row in rows}) == list(range(5)) and {row["variant"] for row in rows} <= set(variants)


def test_files_exist():
    names = re.findall(r"(?:configs|benchmarks|notebooks)/[\w/]+\.\w+", GUIDE)
    names += [
        f"configs/eqprop/{name}.yaml"
        for row in re.findall(r"^\| (`.*?`) \|", GUIDE, re.M)
        for name in re.findall(r"`([\w/]+)`", row)
    ]
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).is_file(), f"the guide names {name}"
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", GUIDE):
        assert (ROOT / "docs" / target).exists(), f"the guide links to {target}"
