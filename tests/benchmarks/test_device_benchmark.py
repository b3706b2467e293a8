"""The device benchmark: shrunken models run without fklit's heavier dependencies, full-size ones have their sizes."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ABSENT = ("lightning", "pytorch_lightning", "open_clip", "torchmetrics", "jsonargparse", "tensorboard")


def _run(*arguments, absent):
    hidden = f"import runpy, sys; sys.modules |= dict.fromkeys({absent!r}); sys.path.insert(0, 'benchmarks'); "
    run = f"sys.argv = ['device.py', *{arguments!r}]; runpy.run_path('benchmarks/device.py', run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", hidden + run], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_shrunken_models_run_without_heavier_dependencies(tmp_path):
    done = _run("--cpu", "--out", str(tmp_path / "device.json"), absent=ABSENT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "device.json").read_text())
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert found["rows"] == printed and not any("skipped" in row or "error" in row for row in printed)
    assert found["seconds"] < 150
    measured = [row for row in printed if "steered seconds" in row]
    assert [row["case"] for row in measured if row["model"] == "SD3.5-medium"] == ["K = 1", "K = 4", "K = 4, compiled"]
    assert len(measured) == 11 and all(row["finite"] for row in measured)
    for row in measured:
        assert row["denoiser rows"] > 0 and row["decodes"] > 0
        if row["case"] == "K = 1":
            assert row["equals the plain sample"] and row["steps that resampled"] == 0
        else:
            assert row["steps that resampled"] == 3
    checks = {row["case"]: row["rows"] for row in printed if "rows" in row}
    assert all(row["share of equal ancestors"] == 1 for row in checks["resampling"])
    assert max(row["relative error"] for row in checks["TF32"]) < 0.01
    assert max(row["largest difference of a weight from float32"] for row in checks["precision"]) < 0.05


def test_cases_after_the_limit_are_skipped_by_name(tmp_path):
    done = _run("--cpu", "--limit", "0", "--models", "sdxl", "--out", str(tmp_path / "device.json"), absent=())
    rows = json.loads((tmp_path / "device.json").read_text())["rows"]
    assert done.returncode == 0 and all("raise --limit" in row["skipped"] for row in rows) and len(rows) == 4


def test_missing_jaxtyping_is_said_in_one_line():
    done = _run("--cpu", absent=("jaxtyping",))
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0 and "pip install jaxtyping" in done.stderr


@pytest.mark.parametrize(
    ("name", "network", "billions"),
    [
        ("sdxl", "unet", 2.567),
        ("sd3", "transformer", 2.243),
        ("flux", "transformer", 11.901),
        ("wan", "transformer", 1.419),
    ],
)
def test_full_size_models_have_their_sizes(monkeypatch, name, network, billions):
    """Counted without memory; what is computed by NumPy on the way would fail here as on an accelerator."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    models = importlib.import_module("device_models")
    parts = models.MODELS[name](False).networks(torch.device("meta"), torch.bfloat16)
    count = sum(parameter.numel() for parameter in parts[network].parameters())
    assert count / 1e9 == pytest.approx(billions, abs=6e-4)
