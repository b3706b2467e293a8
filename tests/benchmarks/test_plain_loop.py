import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tiny import tiny_stable_diffusion

from fklit.pipelines.fast_decoder import FastDecoder
from fklit.rewards.function import Function

FOLDER = Path(__file__).parents[2] / "benchmarks"
GIVEN = Namespace(particles=3, steps=5, scale=50.0, rounds=2, batch=2)


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))  # its neighbors are imported by name
    spec = importlib.util.spec_from_file_location("plain_loop", FOLDER / "plain_loop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import DDIMScheduler

    pipeline = tiny_stable_diffusion()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_loop_returns_pictures_and_copies_the_best(bench, pipeline):
    loop = bench.plain_loop
    reward = Function(lambda images: images.mean(dim=(1, 2, 3)))
    images, rewards = loop(pipeline, reward, "a cat", (1, 2, 3), GIVEN, 0)
    assert images.shape[0] == rewards.shape[0] == 3 and 0 <= float(images.min()) <= float(images.max()) <= 1
    # Without a reward nobody is resampled, and a large scale leaves one of them.
    again, flat = loop(pipeline, Function(lambda images: 0 * images.mean(dim=(1, 2, 3))), "a cat", (1,), GIVEN, 0)
    assert len({tuple(image.flatten()[:20].tolist()) for image in again}) == 3 and not flat.any()
    hard = Namespace(**{**vars(GIVEN), "scale": 1e6})
    _, best = loop(pipeline, reward, "a cat", (), hard, 0)
    assert torch.unique(best).numel() == 1


@pytest.mark.slow
def test_seconds_are_ratios_to_the_loop(bench, pipeline, monkeypatch):
    monkeypatch.setattr(bench, "TINY", FastDecoder("float32"))
    found = bench.timed(pipeline, Function(lambda images: images.mean(dim=(1, 2, 3))), ["a cat", "two dogs"], GIVEN)
    assert found["seconds_of_the_loop"] > 0 and found["fklit"]["ratio"] > 0
    json.dumps(found, allow_nan=False)
