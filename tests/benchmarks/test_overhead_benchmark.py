import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import tiny_stable_diffusion

from fklit.rewards.function import Function

PATH = Path(__file__).parents[2] / "benchmarks" / "overhead.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("overhead_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.slow
def test_net_time_leaves_out_decoder_and_reward(bench):
    pipeline, reward = tiny_stable_diffusion(), Function(lambda images: images.mean(dim=(1, 2, 3)))
    pipeline.set_progress_bar_config(disable=True)
    given = SimpleNamespace(particles=3, scale=50.0, steps=10, repeats=2)
    figures = bench.pipeline_overhead(pipeline, reward, ["a cat"], given)
    assert not pipeline.vae.decoder._forward_hooks and not reward._forward_hooks
    for name in ("best_of_n", "fk"):
        timed = figures[name]
        assert 0 < timed["net"] < timed["total"] and timed["decode"] > 0 and timed["reward"] > 0
    assert figures["fk"]["resamplings"] >= 5 and figures["best_of_n"]["resamplings"] == 0
    assert figures["ratio_net"]["median"] > 0
    json.dumps(figures, allow_nan=False)


def test_times_of_resampling(bench):
    assert bench.time_resampler(2, 50, 2)["milliseconds"] > 0


def test_missing_peers_are_said_to_be_missing(bench, monkeypatch):
    monkeypatch.setattr(bench, "SIZES", ((2, 8),))
    found = bench.peers([sys.executable], 2)
    assert set(found) == {"blackjax", "particles"}
    for figures in found.values():
        assert "not measured" in figures or figures["2 x 8"]["milliseconds"] > 0
