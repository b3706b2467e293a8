"""Base beside steered in a test: the figures by hand, and warnings where the reward rises while a metric falls."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from tiny import tiny_stable_diffusion

from fklit.callbacks import MetricsCallback, RewardHackingWarning, SameModelWarning, base_comparison
from fklit.callbacks.base_comparison import BaseComparison, report_hacking
from fklit.callbacks.same_model import share_model
from fklit.correctors.guidance.task import GuidanceTask
from fklit.data import PromptDataModule
from fklit.feynman_kac.schedule import Schedule
from fklit.metrics import Gain, RewardMetric, SampleBatch, UniqueRoots
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Clipped, CLIPScore, Function, ImageReward, WeightedSum
from fklit.steering.api import steer
from fklit.steering.task import SteeringTask

PROMPTS = ["a green heart", "two cats", "a dog", "a red book", "three stars"]
ROWS = [{"prompt": prompt, "tag": tag} for prompt, tag in zip(PROMPTS, "xyxyx", strict=True)]
SETTINGS = {
    "num_particles": 4,
    "max_batch": 8,
    "reward_scale": 200.0,
    "reward_schedule": Schedule(start=1, stop=3, every=1),
    "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0},
}


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def blueness(images):
    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))


def unred(images):
    return -redness(images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(path)
    return str(path)


def run(folder, tmp_path, callback, *, task=None, stage="test", rows=ROWS):
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=tmp_path, callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    task = SteeringTask(PipelineSource(folder), reward=Function(redness), **SETTINGS) if task is None else task
    return getattr(trainer, stage)(task, PromptDataModule(prompts=rows, batch_size=4), verbose=False)[0]


def test_base_steered_and_gain_are_those_of_two_runs(folder, tmp_path):
    callback = MetricsCallback({"blue": RewardMetric(Function(blueness)), "roots": UniqueRoots()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RewardHackingWarning)
        logged = run(folder, tmp_path, callback)
    pipeline = PipelineSource(folder).pipeline
    steered = steer(pipeline, PROMPTS, reward=redness, **SETTINGS)
    # the base is the pipeline itself
    base = steer(pipeline, PROMPTS, reward=redness, **{**SETTINGS, "num_particles": 1, "reward_scale": 0.0})
    chosen = steered.samples[range(5), steered.best_index()]
    for name, function in (("reward", redness), ("blue", blueness)):
        one, other = function(base.samples[:, 0]).double(), function(chosen).double()
        for label, rows in (("", [*range(5)]), ("/x", [0, 2, 4]), ("/y", [1, 3])):
            assert logged[f"test/base/{name}{label}"] == pytest.approx(float(one[rows].mean()), abs=1e-6)
            assert logged[f"test/steered/{name}{label}"] == pytest.approx(float(other[rows].mean()), abs=1e-6)
            gain = (other - one)[rows]
            assert logged[f"test/gain/{name}{label}"] == pytest.approx(float(gain.mean()), abs=1e-6)
            error = float(gain.std() / len(rows) ** 0.5)
            assert logged[f"test/gain_se/{name}{label}"] == pytest.approx(error, abs=1e-6)
    assert logged["test/steered/reward"] == pytest.approx(logged["test/reward_best"], abs=1e-6)
    assert logged["test/steered/blue"] == logged["test/blue"] and "test/base/roots" not in logged
    assert logged["test/gain/reward"] > 0, "what is chosen has more of the reward"


def test_it_warns_of_a_metric_that_falls_by_the_reward(folder, tmp_path):
    callback = MetricsCallback({"judge": RewardMetric(Function(unred))}, by=None)
    with pytest.warns(RewardHackingWarning, match="expected judge to gain with the reward, got reward hacking: "):
        logged = run(folder, tmp_path, callback, rows=[{"prompt": f"a dog {number}"} for number in range(12)])
    assert logged["test/gain/judge"] == pytest.approx(-logged["test/gain/reward"], abs=1e-6)
    assert not any(name.endswith(("/x", "/y")) for name in logged)


def test_one_particle_a_validation_and_no_wish_draw_no_base(folder, tmp_path):
    metrics = {"blue": RewardMetric(Function(blueness))}
    alone = SteeringTask(PipelineSource(folder), reward=Function(redness), **{**SETTINGS, "num_particles": 1})
    for logged in (
        run(folder, tmp_path, MetricsCallback(metrics), stage="validate"),
        run(folder, tmp_path, MetricsCallback(metrics, base=False)),
        run(folder, tmp_path, MetricsCallback(metrics), task=alone),
    ):
        assert not any("base/" in name or "gain/" in name for name in logged)


def test_corrected_guidance_without_a_reward_has_gains_of_metrics_alone(folder, tmp_path):
    task = GuidanceTask(
        PipelineSource(folder), guidance_scale=3.0, num_particles=2, pipeline_kwargs=SETTINGS["pipeline_kwargs"]
    )
    logged = run(folder, tmp_path, MetricsCallback({"blue": RewardMetric(Function(blueness))}), task=task)
    assert {"test/base/blue", "test/gain/blue/x"} <= logged.keys() and "test/base/reward" not in logged


def test_a_base_that_is_no_sample_is_left_out():
    """The second prompt's: its particle was dropped for a NaN, and its picture is black."""
    images = torch.rand(3, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(3)

    def batch(rewards, dropped):
        result = SimpleNamespace(rewards=torch.tensor(rewards).double()[:, None], dropped=torch.tensor(dropped))
        return SampleBatch(["a"] * 3, [{"tag": "x"}, {}, {}], torch.zeros_like(numbers), numbers, result)

    base = batch([1.0, 9.0, -torch.inf], [0, 1, 0])
    task = SimpleNamespace(sample_base=lambda batch: (images / 2, base))
    comparison = BaseComparison({"red": RewardMetric(Function(redness))}, by="tag")
    steered = batch([3.0, 4.0, 5.0], [0, 0, 0])
    comparison.add(steered, {"red": comparison.metrics["red"].measure(images, steered)}, task)
    (reward, red) = (comparison.pairs[name].gains() for name in ("reward", "red"))
    assert (reward[""].num_prompts, reward[""].gain) == (1, 2.0) and reward["x"].gain == 2.0
    assert red[""].num_prompts == 2 and list(red) == ["", "x"]
    expected = redness(images[:, 0])[[0, 2]].double() / 2
    assert red[""].gain == pytest.approx(float(expected.mean()), abs=1e-6)


def gain(value, error=0.1, base=0.5):
    return Gain(30, base, base + value, value, error)


def warned(measure, reward, **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        report_hacking("judge", measure, reward, **options)
    return [str(item.message) for item in found]


def test_only_what_is_decided_is_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr(base_comparison, "rank_zero_info", said.append)
    up, down, even = {"": gain(0.9)}, {"": gain(-0.5)}, {"": gain(-0.1)}
    (line,) = warned(down, up)
    assert line == (
        "expected judge to gain with the reward, got reward hacking: the reward went from 0.5 to 1.4 (s.e. of the gain "
        "0.1), judge from 0.5 to 0 (s.e. 0.1), over 30 prompts; lower reward_scale, or guide by a reward that agrees "
        "with judge."
    )
    assert warned(up, up) == warned(even, up) == warned(down, even) == warned(down, down) == []
    assert warned(up, up, better=-1) and not warned(down, up, better=-1)
    said.clear()
    warned(even, up)
    assert said[0].startswith("Undecided whether this is reward hacking (within two standard errors): the reward went")
    assert len(said) == 1
    (line,) = warned({"": gain(0.5), "position": gain(-0.5), "counting": gain(0.5)}, {
        "": gain(0.9), "position": gain(0.9), "counting": gain(0.9),
    })  # fmt: skip
    assert "of 'position' the reward went" in line and "counting" not in line


def test_guide_and_judge_are_not_the_same_model(folder, tmp_path):
    clip, scaled = CLIPScore("fklit:emoji_clip"), CLIPScore("fklit:emoji_clip", scale=100.0, max_batch=4)
    assert share_model(clip, scaled) and share_model(WeightedSum([Function(redness), scaled], [1.0, 1.0]), clip)
    assert share_model(Clipped(clip, low=0.0, high=1.0), scaled)
    assert not share_model(clip, CLIPScore("ViT-B-32", "laion2b_s34b_b79k"))
    assert not share_model(clip, ImageReward("fklit:emoji_reward"))
    assert share_model(Function(redness), Function(redness)) and not share_model(Function(redness), Function(unred))
    callback = MetricsCallback({"same": RewardMetric(Function(redness)), "blue": RewardMetric(Function(blueness))})
    with pytest.warns(SameModelWarning, match="same expected another model than the reward, got .*redness of"):
        logged = run(folder, tmp_path, callback, stage="validate")
    assert "val/same" in logged and callback._blind == ["same"]
