import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import tiny_stable_diffusion

from fklit.emoji.prompts import test_prompts as draw_prompts
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
def methods():
    return load("steering_methods")


@pytest.fixture(scope="module")
def cells(methods):
    return load("steering_cells")


@pytest.fixture(scope="module")
def summary(cells):
    return load("steering_summary")


@pytest.fixture(scope="module")
def tables():
    return load("steering_tables")


@pytest.fixture(scope="module")
def bench(cells, summary, tables):
    load("steering_process")
    return load("steering")


class _Judge:
    def judge(self, images, metadata):
        return [SimpleNamespace(correct=float(image[0].mean()) > 0.5) for image in images]


def redness(images):
    return images[:, 0].mean(dim=(1, 2)) - images[:, 1].mean(dim=(1, 2))


def test_best_of_is_the_mean_over_all_subsets(summary):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=6), rng.uniform(size=6)
    for n in (1, 3, 6):
        subsets = list(itertools.combinations(range(6), n))
        brute = np.mean([values[max(subset, key=lambda i: rewards[i])] for subset in subsets])
        assert summary.best_of(n, rewards, values) == pytest.approx(brute)
    assert summary.best_of(1, rewards, values) == pytest.approx(values.mean())
    with pytest.raises(ValueError, match="from 1 to 6, the size of the pool, got n=7"):
        summary.best_of(7, rewards, values)


@pytest.mark.parametrize("missing", [float("nan"), None])
def test_a_picture_without_a_reward_is_never_chosen(summary, missing):
    """Over all subsets: it takes its place in them, as it was paid for, and another one is chosen."""
    rewards, judge = [missing, 0.3, missing, 0.9, 0.1], [1.0, 0.25, 1.0, 0.5, 0.0]
    for n in (1, 2, 3, 5):
        chosen = []
        for subset in itertools.combinations(range(5), n):
            scored = [i for i in subset if i not in (0, 2)]
            if scored:
                chosen.append(judge[max(scored, key=lambda i: rewards[i])])
        assert summary.best_of(n, rewards, judge) == pytest.approx(np.mean(chosen))
    cell = {"rewards": rewards, "judge": judge, "prompt": "a", "seed": 0}
    found = summary.pool_values(cell, 1)
    assert [found[name] for name in ("reward_mean", "reward_best")] == pytest.approx([1.3 / 3] * 2)
    assert found["judge_mean"] == pytest.approx(np.mean(judge)), "the judge has seen them all"
    steered = {"rewards": [missing, 2.0], "judge": [1.0, 0.5], "weights": [0.0, 1.0], "best": 1, "unique_roots": 1}
    assert summary.fk_values(steered)["reward_mean"] == 2.0


def test_a_pool_without_a_reward_is_left_out(summary):
    cells = [
        {"rewards": [1.0, None], "judge": [1.0, 0.0], "prompt": "a", "seed": 0},
        {"rewards": [None, float("nan")], "judge": [1.0, 1.0], "prompt": "b", "seed": 0},
    ]
    assert set(summary.values_of_pools(cells, 2)) == {("a", 0)} and len(summary.with_rewards(cells)) == 1
    with pytest.raises(ValueError, match="expected a reward of at least one of 2 samples, got none"):
        summary.best_of(1, cells[1]["rewards"], cells[1]["judge"])


def test_differences_are_clustered_by_prompt(summary):
    ours = {(p, s): {"x": gap + s} for p, gap in (("a", 1.0), ("b", 3.0)) for s in range(3)}
    theirs = {cell: {"x": float(cell[1])} for cell in ours}
    found = summary.difference(ours, theirs, "x")
    assert found == {"mean": 2.0, "low": 1.0, "high": 3.0, "prompts": 2, "cells": 6}


def test_broken_lines_do_not_count_and_do_not_break_later_ones(cells, tmp_path):
    path = tmp_path / "cells.0.jsonl"
    cells.append(path, [{"key": "a"}])
    with path.open("a") as file:
        file.write('{"key": "b", "rew')
    cells.append(path, [{"key": "c"}])
    assert set(cells.read_cells(tmp_path)) == {"a", "c"}


@pytest.mark.slow
def test_cells_resume_and_summarize(cells, summary, tables, tmp_path):
    tiny_stable_diffusion(tmp_path / "pipeline")
    source, reward, judge = PipelineSource(str(tmp_path / "pipeline")), Function(redness), _Judge()
    prompts = tuple(draw_prompts(2, held_out=True, tags=("position",)) + draw_prompts(2, held_out=False))
    arms = (cells.Arm("unsteered", 6), cells.Arm("unsteered_eta0", 4, 0.0), cells.Arm("fk", 4, scale=400.0))
    plan = cells.Plan(arms, prompts, (0, 1), 6, 3.0, str(tmp_path), str(tmp_path), str(tmp_path))
    folder = tmp_path / "cells"
    folder.mkdir()
    models = (source.pipeline, reward, judge)
    for shard in (0, 1):
        cells.run_cells(plan, folder, models=models, shard=shard, shards=2)
    found = cells.read_cells(folder)
    assert len(found) == 3 * 4 * 2
    lines = sum(len(path.read_text().splitlines()) for path in folder.glob("*.jsonl"))
    cells.run_cells(plan, folder, models=models)  # all is there: nothing is computed
    assert sum(len(path.read_text().splitlines()) for path in folder.glob("*.jsonl")) == lines
    figures = summary.summarize(plan, found)
    (row,) = figures["rows"]
    assert row["fk - best_of_n, equal denoiser calls"]["reward_best"]["prompts"] == 4
    assert row["held-out pairs: fk - best_of_n, equal denoiser calls"]["judge"]["prompts"] == 2
    assert row["resamplings"] > 0 and figures["pools_without_a_reward"] == 0
    json.dumps(figures, allow_nan=False)
    from rich.console import Console

    console = Console(record=True, width=150)
    tables.show(figures, console)
    assert "deterministic sampler" in console.export_text()


def test_plans_never_tune_on_test_prompts(bench):
    test = bench.make_plan(bench.parse([]))
    tune = bench.make_plan(bench.parse(["--tune"]))
    assert len(test.prompts) == 96 and sum(prompt.held_out for prompt in test.prompts) == 48
    assert not {p.text for p in test.prompts} & {p.text for p in tune.prompts}
    assert {p.split for p in tune.prompts} == {"tune"} and {p.split for p in test.prompts} == {"test"}
    assert {arm.k for arm in test.arms if arm.scale is not None} == {4, 8} and len(test.seeds) == 5
