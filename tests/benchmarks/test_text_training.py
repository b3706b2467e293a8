"""The choice among trained variants: their configurations, and which validation is the best."""

import importlib.util
from pathlib import Path

import pytest
import yaml

PATH = Path(__file__).parent.parent.parent / "benchmarks" / "text_training.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("text_training", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_variant_writes_to_its_own_folder(benchmark, tmp_path):
    for task, variants in benchmark.VARIANTS.items():
        for name, changes in variants.items():
            path = benchmark.write_config(task, name, steps=70, max_time=None, folder=tmp_path / task / name)
            config = yaml.safe_load(path.read_text())
            for place, value in changes.items():
                found = config
                for key in place.split("."):
                    found = found[key]
                assert found == value
            folder = str(tmp_path / task / name)
            assert config["model"]["init_args"]["export_dir"].startswith(folder)
            assert config["trainer"]["callbacks"][1]["init_args"]["dirpath"].startswith(folder)
            assert config["trainer"]["max_steps"] == 70 and config["trainer"]["val_check_interval"] == 7


def test_the_lowest_validation_is_found(benchmark, tmp_path):
    for version in (0, 1, 10):
        (tmp_path / "log" / f"version_{version}").mkdir(parents=True)
    head = "epoch,step,train/loss,val/bits_per_character,val/nelbo\n"
    rows = head + "0,9,5.0,,\n0,9,,1.4,4.5\n0,19,,1.3,4.2\n0,29,,1.35,4.3\n"
    (tmp_path / "log" / "version_10" / "metrics.csv").write_text(rows)
    assert benchmark.lowest(tmp_path, "val/nelbo") == {
        "step": 20, "nats_per_token": 4.2, "bits_per_character": 1.3, "last_nats_per_token": 4.3,
    }  # fmt: skip
