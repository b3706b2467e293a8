"""The comparison of methods: its figures by hand, and a run of every method on a tiny pipeline."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from tiny import tiny_stable_diffusion

from fklit.emoji.prompts import test_prompts as draw_prompts
from fklit.pipelines.fast_decoder import FastDecoder
from fklit.pipelines.source import PipelineSource
from fklit.rewards.function import Function

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the next parts look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parts():
    names = (
        *("device_models", "full_size_costs", "steering_methods", "steering_cells", "steering_process"),
        *("steering_stopwatch", "steering_summary", "beyond_summary"),
    )
    found = {name: load(name) for name in names}
    return SimpleNamespace(**found, beyond=load("beyond"))


def redness(images):
    return images[:, 0].mean(dim=(1, 2)) - images[:, 1].mean(dim=(1, 2))


class _Judge:
    def judge(self, images, metadata):
        return [SimpleNamespace(correct=float(image[0].mean()) > 0.5) for image in images]


def test_the_key_of_a_plain_arm_is_what_it_was(parts):
    plain = json.loads(parts.steering_cells.key(parts.steering_cells.Arm("fk", 4), "a", 0))
    other = json.loads(parts.steering_cells.key(parts.steering_cells.Arm("max", 4, method="max"), "a", 0))
    assert "method" not in plain[0] and other[0]["method"] == "max"


def test_the_target_of_a_pool_is_its_self_normalized_mean(parts):
    cells = [
        {"prompt": "a", "rewards": [0.0, -1.0], "judge": [1.0, 0.0]},
        {"prompt": "a", "rewards": [-2.0, 0.0], "judge": [0.0, 0.0]},
    ]
    z, judge = parts.beyond_summary.of_target(cells, 2.0)
    weights = [1.0, math.exp(-2.0), math.exp(-4.0), 1.0]
    assert z["a"] == pytest.approx(np.mean(weights)) and judge["a"] == pytest.approx(1.0 / sum(weights))


def test_best_of_a_fractional_n_is_a_mixture(parts):
    cell = {"rewards": [3.0, 2.0, 1.0], "judge": [1.0, 0.0, 0.0]}
    values = [parts.steering_summary.pool_values(cell, n) for n in (2, 3, 2.25)]
    for name in values[0]:
        assert values[2][name] == pytest.approx(0.75 * values[0][name] + 0.25 * values[1][name])


def test_operations_of_the_shrunken_models_are_counted(parts):
    for name in parts.full_size_costs.NAMES:
        unit = parts.full_size_costs.costs(name, small=True)
        assert set(unit) == {"denoiser", "decode", "tiny", "reward"} and min(unit.values()) > 0
    # ViT-L/16 on 197 tokens is published with 61.6 billion multiplications with an addition each (Touvron et al. 2022)
    assert 2 * 0.0616 < unit["reward"] < 2 * 0.0616 * 1.2


def test_searches_get_no_settings_of_weights(parts):
    usual = dict.fromkeys((*parts.steering_methods.OF_WEIGHTS, "reward_scale"))
    for name in parts.steering_methods.SEARCHES:
        given = set(parts.steering_methods.method_settings(name, 4, usual))
        assert given - {"preview_decoder"} == {"reward_scale", "search"}
    with pytest.raises(ValueError, match="expected a method of calibrated, max"):
        parts.steering_methods.method_settings("best", 4, usual)


def test_plans_never_tune_on_test_prompts(parts):
    test = parts.beyond.make_plan(parts.beyond.parse(["--method", "early stop"]))
    tune = parts.beyond.make_plan(parts.beyond.parse(["--tune"]))
    assert len(test.prompts) == 96 and {p.split for p in test.prompts} == {"test"} and len(test.seeds) == 5
    assert {p.split for p in tune.prompts} == {"tune"} and not set(test.seeds) & set(tune.seeds)
    assert [arm.method for arm in test.arms if arm.k == 8] == ["early stop", ""]
    assert {arm.method for arm in tune.arms} == set(parts.beyond.SIDE)


@pytest.mark.slow
def test_every_method_runs_and_is_compared(parts, tmp_path, monkeypatch):
    tiny_stable_diffusion(tmp_path / "pipeline")
    models = (PipelineSource(str(tmp_path / "pipeline")).pipeline, Function(redness), _Judge())
    monkeypatch.setattr(parts.steering_methods, "TINY", FastDecoder("float32"))
    of_the_emoji_scenes = ("calibrated", "latent reward")  # and what starts so
    names = [name for name in parts.steering_methods.METHODS if not name.startswith(of_the_emoji_scenes)]
    cells = parts.steering_cells
    arms = (cells.Arm("unsteered", 40), *(cells.Arm(name or "fk", 2, scale=40.0, method=name) for name in names))
    prompts = tuple(draw_prompts(2, held_out=False))
    plan = cells.Plan(arms, prompts, (0,), 6, 3.0, str(tmp_path), str(tmp_path), str(tmp_path))
    folder = tmp_path / "cells"
    folder.mkdir()
    cells.run_cells(plan, folder, models=models)
    found = cells.read_cells(folder)
    watch = parts.steering_stopwatch
    clock = watch.measured(plan, folder, lambda: models, 1, Console(quiet=True))
    assert clock == watch.read_clock(folder) == watch.measured(plan, folder, None, 1, Console(quiet=True))
    assert {len(rounds) for rounds in clock.values()} == {1} and min(
        min(pair) for rounds in clock.values() for pair in rounds
    ) > 0
    clock = {watch.name_of(arm): [[2.0, 1.0], [3.0, 1.0]] for arm in arms[1:]}
    unit = {"denoiser": 1.0, "decode": 3.0, "tiny": 0.5, "reward": 0.25}
    figures = parts.beyond_summary.summarize(plan, found, clock, {"a model": unit}, "early stop")
    json.dumps(figures)
    rows = {row["method"]: row for row in figures["rows"]}
    assert set(rows) == set(names) and figures["summary"]["method"] == "early stop"
    for name in ("", "max", "three scores", "early stop", "linear", "geometric", "adaptive", "svdd", "code"):
        assert rows[name]["equal_calls"]["n"] == 2, name
    assert rows["sequential"]["equal_calls"]["n"] >= 2 and "less_sequential" not in rows["sequential"]
    assert rows["max"]["target"]["z"] > 0 and "target" not in rows["svdd"]
    assert figures["summary"]["equal_seconds"]["judge"] == rows["early stop"]["equal_seconds"]["judge"]
    assert rows["max"]["seconds_standard_error"] == pytest.approx(0.5)
    mixed = rows["max"]["equal_seconds"]
    assert mixed["n"] == 2.5 and mixed["reward"][0] > mixed["rounded_up"]["reward"][0]
    # Two samples of six steps, decoded and scored at every step between .2 and .8 and at the end
    scored = rows["max"]["reward_calls"]
    wanted = (12 * 1.0 + scored * (3.0 + 0.25)) / (6 * 1.0 + 3.0 + 0.25)
    assert rows["max"]["equal_seconds_model"]["a model"]["n"] == pytest.approx(wanted)

    table = load("beyond_tables").methods_table(figures)
    assert (
        table.count("\n") == 1 + len(names) and "| **early stop** | 2 |" in table and "| svdd (a search) | 2 |" in table
    )
    load("beyond_figure").draw(figures | {"operations_at_full_size": {"a model": unit}}, tmp_path / "beyond.png")
    assert (tmp_path / "beyond.png").stat().st_size > 10_000
    console = Console(record=True, width=170)
    parts.beyond.show(figures, console)
    assert "sequential" in console.export_text()


@pytest.mark.parametrize("name", ["beyond_methods", "beyond_k8"])
def test_the_guide_has_the_tables_of_all_methods(name):
    root = FOLDER.parent
    found = json.loads((root / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    table = load("beyond_tables").methods_table(found)
    assert table in (root / "docs" / "steering.md").read_text(encoding="utf-8")
