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
def simulation():
    return _load("correctors_simulation")


@pytest.fixture(scope="module")
def benchmark(simulation):
    _load("correctors_steps")
    _load("correctors_pipelines")  # which finds the parts before it among the loaded modules
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
    benchmark.main([*words, "--seeds", "1"])
    assert "NaN" not in (tmp_path / "variance.json").read_text(), "one seed has no error, and JSON no NaN"


def test_figures_of_a_small_run(simulation):
    target = simulation.targets(simulation.VariancePreserving())["guidance 2"]
    found = simulation.one_dimensional(target, 0, num_particles=200, num_steps=20)
    assert 0 < found["w1"] < 1 and 0 < found["ess"] <= 1
    _, log_z = simulation.density(target)
    assert log_z == pytest.approx(0.961, abs=1e-3)
    labels, cell = next(iter(simulation.gmm40(particles=200, steps=10)))
    assert labels == {"method": "truth against truth"} and cell(0)["mode_tv"] < 0.5


def test_figures_of_long_steps(simulation):
    module = _load("correctors_steps")
    cells = list(module.steps())
    labels = [labels for labels, _ in cells]
    assert len(cells) == 27 and labels[0] == {"temperature": "2", "evaluations": "60", "way": "Euler-Maruyama"}
    first, second = (cells[k][1](0) for k in (0, 1))
    assert 0.05 < first["energy_error"] < 0.3 and abs(second["energy_error"]) < 0.08


@pytest.mark.slow
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
    options |= {"scales": (4.0,), "particles": (2, 4)}
    console = Console(file=open(tmp_path / "log", "w"), width=200)  # noqa: SIM115
    rows = module.run(tmp_path, console, **options)
    again = module.run(tmp_path, console, **options)
    module.show(rows, console)
    ways = ["best of K", "exact", "early", "tempered"]
    assert rows == again and [row["way"] for row in rows] == ["one plain draw", *ways, *ways]
    exact = rows[2]
    assert exact["k"] == 2 and exact["judge - plain"]["mean"] == 0 and exact["log_weight_std"]["mean"] > 0
    assert exact["calls"]["mean"] == 2 * 2 * 3, "rows of a step, both halves of guidance"
    assert rows[1]["reward - plain"]["mean"] >= 0
    assert torch.isfinite(torch.tensor(exact["diversity"]["mean"]))
    console.file.close()


def test_best_of_k_is_the_mean_over_all_choices():
    from itertools import combinations

    best_of = _load("correctors_emoji").best_of
    rewards, values = [0.3, 0.9, -1.0, 0.5], [1.0, 0.0, 3.0, 7.0]
    for k in (1, 2, 3, 4):
        chosen = [max(group, key=rewards.__getitem__) for group in combinations(range(4), k)]
        assert best_of(k, rewards, values) == pytest.approx(sum(values[i] for i in chosen) / len(chosen))


@pytest.mark.slow
def test_why_parts(monkeypatch):
    module = _load("correctors_why")
    monkeypatch.setattr(module, "PipelineSource", lambda name: SimpleNamespace(pipeline=tiny_stable_diffusion()))
    row = module.mutual_information("", seeds=(0,), prompts=2, steps=3)[0]
    assert len(row["by_step"]) == 3 and sum(row["by_step"]) == pytest.approx(row["nats"], abs=1e-2)
    assert 7 < row["entropy"] < 8
    found = module.summaries("", prompts=2, steps=2, k=8)
    assert [row["kind"] for row in found] == list(module.KINDS)


def test_a_control_that_explains_everything_is_found():
    module = _load("correctors_why")
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    weights = [f @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) for f in features]
    total = sum(float(w.square().sum()) for w in weights)
    for explained in (module._across, module._within):
        assert explained(features, weights, 1e-6) < 1e-4 * total


def test_the_distance_of_colors_is_unbiased():
    module = _load("correctors_exact_pictures")
    generator = torch.Generator().manual_seed(0)
    equal = torch.full((5,), 0.2, dtype=torch.float64)
    tilted = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1], dtype=torch.float64)
    for law in (equal, tilted):
        draws = torch.multinomial(law, 2000 * 10, replacement=True, generator=generator).reshape(2000, 10)
        shares = torch.nn.functional.one_hot(draws, 5).double()
        found = torch.tensor([module.squared_distance(each) for each in shares], dtype=torch.float64)
        wanted = float((law - 0.2).square().sum())
        assert abs(float(found.mean()) - wanted) < 4 * float(found.std()) / 2000**0.5


def test_pictures_part(monkeypatch):
    from fklit.analytic import GaussianMixture

    module = _load("correctors_exact_pictures")
    hearts = torch.randn(5 * module.EACH, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masses = torch.tensor([module.SHARE / len(hearts)] * len(hearts) + [1 - module.SHARE], dtype=torch.float64)
    everything = GaussianMixture(torch.cat([hearts, torch.zeros(1, 3)]), 0.01, masses)
    monkeypatch.setattr(module, "laws", lambda: (GaussianMixture(hearts, 0.01), everything))
    rows = module.run(seeds=(0,), steps=4, groups=6, scales=(2.0,), particles=(1, 4))
    assert [row["k"] for row in rows[1:]] == [1, 4] and rows[0]["exact_nats"] == pytest.approx(2.9957, abs=1e-3)
    assert all(sum(row["shares"]) == pytest.approx(1, abs=1e-2) for row in rows[1:])
    assert rows[1]["least_ess"] == rows[1]["unique_roots"] == 1
