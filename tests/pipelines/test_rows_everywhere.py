"""Every steered pipeline with some rows of its denoiser only, and with its rows in chunks: as with all at once."""

import importlib
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from tiny_families import rows

from fklit.pipelines import shared_rows
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.steering.fewer_particles import FewerParticles

ROOT = Path(__file__).parents[2]
PARTS = 8  # so that processes share the work
EVERY = ("DDPMPipeline", "FluxPipeline", "StableDiffusionXLPipeline")
_STEERED = [
    row["pipeline"]
    for row in json.loads((ROOT / "docs" / "results" / "compatibility.json").read_text())["rows"]
    if row["verdict"] == "steered" and not rows()[row["pipeline"]].tokens
]


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("compatibility_cells")


def _goes_on_as_one(cells, monkeypatch, name):
    """Return the share of the denoiser's rows that were evaluated."""
    row = rows()[name]
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = row.make()[0]
        fewer = {"fewer_particles": FewerParticles(above=-math.inf), "reward_scale": 1.0}
        found = cells._steer(row, pipeline, **fewer)
        with monkeypatch.context() as patch:
            patch.setattr(shared_rows, "_are_copies", lambda *_: False)
            every = cells._steer(row, pipeline, **fewer)
    assert bool((found.fewer_particles_from >= 0).all()), name
    assert torch.equal(found.fewer_particles_from, every.fewer_particles_from)
    samples = found.samples.flatten(2).float()
    close = {"rtol": 0.0, "atol": 2e-3 * float(samples.abs().max().clamp(min=1.0))}
    # The denoiser rounds by the number of rows, the decoder by the place of a row.
    torch.testing.assert_close(samples, every.samples.flatten(2).float(), **close, msg=lambda text: f"{name}: {text}")
    torch.testing.assert_close(samples, samples[:, :1].expand_as(samples), **close, msg=lambda text: f"{name}: {text}")
    assert found.budget.denoiser_calls <= every.budget.denoiser_calls
    return found.budget.denoiser_calls / every.budget.denoiser_calls


@pytest.mark.parametrize("name", EVERY)
def test_a_few_pipelines_save_calls(cells, monkeypatch, name):
    assert _goes_on_as_one(cells, monkeypatch, name) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_steered_pipeline_is_as_right_with_fewer_rows(cells, monkeypatch, part):
    shares = {name: _goes_on_as_one(cells, monkeypatch, name) for name in _STEERED[part::PARTS]}
    # Their text has an entry a frame, and their samples are lists.
    assert {name for name, share in shares.items() if share == 1.0} <= {*_FRAMES, *_LISTS}


_FRAMES = {name for name in _STEERED if name.startswith("AnimateDiff")}
_LISTS = {"ZImageImg2ImgPipeline", "ZImagePipeline"}


def _in_chunks(cells, name):
    row = rows()[name]
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = row.make()[0]
        every = cells._steer(row, pipeline, reward_scale=1.0, potential="terminal")
        if "PAG" in name or name in _FRAMES | _LISTS:
            with pytest.raises(UnsupportedPipelineError, match="max_batch expected a denoiser whose rows can be split"):
                cells._steer(row, pipeline, reward_scale=1.0, potential="terminal", max_batch=3)
            return
        found = cells._steer(row, pipeline, reward_scale=1.0, potential="terminal", max_batch=2)
    close = {"rtol": 0.0, "atol": 2e-3 * float(every.samples.abs().max().clamp(min=1.0))}
    torch.testing.assert_close(found.samples, every.samples, **close, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("name", ["HiDreamImagePipeline", "StableDiffusionPAGPipeline", "AnimateDiffPipeline"])
def test_rows_are_split_where_they_can_be(cells, name):
    _in_chunks(cells, name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_steered_pipeline_is_the_same_in_chunks_or_refuses_them(cells, part):
    for name in _STEERED[part::PARTS]:
        _in_chunks(cells, name)
