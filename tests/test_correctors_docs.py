"""What the correctors' guide names exists, and its tables are those of the stored results."""

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "correctors.md").read_text()


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
