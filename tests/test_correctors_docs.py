"""The examples of the correctors' guide run as they stand, and what it names exists."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "correctors.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=[f"example {i + 1}" for i in range(len(EXAMPLES))])
def test_examples_run(example):
    exec(compile(example, "correctors.md", "exec"), {"__name__": "guide"})


def test_files_exist():
    for name in re.findall(r"(?:configs|benchmarks|notebooks)/[\w/]+\.\w+", GUIDE):
        assert (ROOT / name).is_file(), f"the guide names {name}"
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", GUIDE):
        assert (ROOT / "docs" / target).exists(), f"the guide links to {target}"


def test_the_tables_are_those_of_the_stored_results():
    spec = importlib.util.spec_from_file_location("correctors_tables", ROOT / "benchmarks" / "correctors_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads((ROOT / "docs" / "results" / "correctors.json").read_text())
    for name, table in module.tables(results).items():
        assert table in GUIDE, f"the guide's table of {name} is not that of docs/results/correctors.json"
