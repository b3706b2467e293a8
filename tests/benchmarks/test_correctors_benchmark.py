"""The benchmark of correctors: cells are computed once, tables and JSON follow from them."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_stable_diffusion

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def _load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    return _load("correctors")


def test_cells_are_computed_once(benchmark, tmp_path, monkeypatch):
    computed = []

    def part():
        for method in ("one", "two"):

            def cell(seed, method=method):
                computed.append((method, seed))
                return {"w1": float(seed)}

            yield {"method": method}, cell

    monkeypatch.setitem(benchmark.PARTS, "variance", part)
    words = ["--only", "variance", "--output", str(tmp_path)]
    benchmark.main([*words, "--seeds", "2"])
    assert computed == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    found = benchmark.main([*words, "--seeds", "3"])
    assert len(computed) == 6
    row = found["variance"]["rows"][0]
    assert row["method"] == "one" and row["figures"]["w1"] == {
        "mean": 1.0, "sd": 1.0, "se": pytest.approx(3**-0.5)
    }  # fmt: skip
    assert json.loads((tmp_path / "variance.json").read_text())["rows"] == found["variance"]["rows"]


def test_figures_of_a_small_run(benchmark):
    target = benchmark.targets(benchmark.VariancePreserving())["guidance 2"]
    found = benchmark.one_dimensional(target, 0, num_particles=200, num_steps=20)
    assert 0 < found["w1"] < 1 and 0 < found["ess"] <= 1
    _, log_z = benchmark.density(target)
    assert log_z == pytest.approx(0.961, abs=1e-3)
    labels, cell = next(iter(benchmark.gmm40(particles=200, steps=10)))
    assert labels == {"method": "truth against truth"} and cell(0)["mode_tv"] < 0.5


def test_emoji_part(tmp_path, monkeypatch):
    from rich.console import Console

    module = _load("correctors_emoji")

    class Reward:
        def __call__(self, images, prompts):
            return images.mean((1, 2, 3))

        def embed_images(self, images):
            return images.flatten(1)[:, :8]

    judge = SimpleNamespace(judge=lambda images, metadata: [SimpleNamespace(correct=True)] * len(images))
    monkeypatch.setattr(module, "load", lambda pipeline, reward: (tiny_stable_diffusion(), Reward(), judge))
    options = {"seeds": (0, 1), "prompts": 2, "steps": 3, "pipeline": "", "reward": ""}
    options |= {"scales": (4.0,), "particles": (2,), "corrections": (1.0, 0.0)}
    console = Console(file=open(tmp_path / "log", "w"), width=200)  # noqa: SIM115
    rows = module.run(tmp_path, console, **options)
    again = module.run(tmp_path, console, **options)
    module.show(rows, console)
    assert rows == again and [row["correction"] for row in rows] == [1.0, 0.0]
    assert rows[0]["judge - plain"]["mean"] == 0 and rows[0]["spread"]["mean"] > 0
    assert torch.isfinite(torch.tensor(rows[0]["diversity"]["mean"]))
    console.file.close()
