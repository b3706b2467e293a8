import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "two_processes.py"


@pytest.mark.slow
def test_it_runs_with_one_process_and_with_two(tmp_path):
    spec = importlib.util.spec_from_file_location("two_processes", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = tmp_path / "two.json"
    found = module.main(["--rounds", "1", "--prompts", "3", "--batch", "1", "--output", str(target)])
    assert found == json.loads(target.read_text())
    assert set(found["prompts_a_second"][0]) == {"1", "2"} and found["summary"]["ratio"]["median"] > 0
