"""Proposals and search under a real Trainer, which predicts in inference mode, and in a run's folder."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from tiny import tiny_stable_diffusion

import fklit
from fklit.callbacks import SampleWriter
from fklit.data import PromptDataModule
from fklit.metrics.samples import SampleBatch
from fklit.pipelines.source import PipelineSource
from fklit.report.overview import chips
from fklit.report.reading import read_run
from fklit.rewards import Function
from fklit.sampling.look_ahead import LookAhead
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.search import SVDD, RolloverBudget, SequentialBestOfN
from fklit.steering.task import SteeringTask

PROMPTS = ["a green heart", "two cats"]


def brightness(images):
    return 20 * images.mean((1, 2, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return str(path)


def _task(folder, **changes):
    settings = {
        "reward": Function(brightness), "num_particles": 2, "max_batch": 4,
        "pipeline_kwargs": {"num_inference_steps": 5, "eta": 1.0, "guidance_scale": 2.0, "height": 16, "width": 16},
    }  # fmt: skip
    return SteeringTask(PipelineSource(folder), **settings | changes)


METHODS = {
    "proposal": {"proposal": GradientProposal(), "reward_scale": 2.0, "reward_schedule": fklit.Schedule(1, 3, 1)},
    "look-ahead": {"look_ahead": LookAhead(num_samples=2), "reward_scale": 2.0},
    "svdd": {"search": SVDD(children=2)},
    "rollover": {"search": RolloverBudget(draws=2)},
    "sequential": {"search": SequentialBestOfN(threshold=9.0, most=4)},
}


@pytest.mark.parametrize("name", METHODS)
def test_predict_writes_what_ran(folder, tmp_path, name):
    task, out = _task(folder, **METHODS[name]), tmp_path / "run"
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, default_root_dir=tmp_path,
                      callbacks=[SampleWriter(str(out))])  # fmt: skip
    trainer.predict(task, PromptDataModule(prompts=PROMPTS), return_predictions=False)
    run = read_run(out)
    record = next(iter(run.records.values())).raw
    shown = dict(chips(run))
    if name == "proposal":
        assert record["proposal"].startswith("GradientProposal(") and "search" not in shown
        assert record["budget"]["gradient_calls"] > 0 and record["log_z"] is not None
    elif name == "look-ahead":
        assert record["look_ahead"] == "LookAhead(num_samples=2, num_steps=2, eta=1.0)"
        settings = json.loads((out / "run.json").read_text())
        assert '"fklit.sampling.look_ahead.LookAhead"' in json.dumps(settings)
        assert record["budget"]["denoiser_calls"] > 2 * 2 * 5 and record["log_z"] is not None
    else:
        assert shown["search"].startswith(f"{type(METHODS[name]['search']).__name__}: a search, does not sample")
        assert record["log_z"] is None and record["budget"]["denoiser_calls"] > 0
    json.dumps(task.settings())


@pytest.mark.parametrize("name", METHODS)
def test_the_base_beside_a_run_is_drawn_without_the_method(folder, name):
    task = _task(folder, **METHODS[name])
    task.source.load()
    batch = SampleBatch(PROMPTS, [{}, {}], torch.zeros(2, dtype=torch.int64), torch.arange(2))
    samples, _ = task.sample_base(batch)
    plain, _ = _loaded(_task(folder, reward_scale=0.0)).sample_base(batch)
    assert torch.equal(samples, plain)


def _loaded(task):
    task.source.load()
    return task
