import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fklit.callbacks.tensorboard_particles import TensorBoardParticles
from fklit.correctors.guidance.result import GuidanceResult
from fklit.feynman_kac.budget import Budget
from fklit.report.family_tree import family_tree
from fklit.report.record import parse_record
from fklit.report.shapes import Curve, Thumbnail
from fklit.report.tensorboard import lineage_image, log_result
from fklit.steering.result import SteeringResult


def _result(*, prompts=2, particles=3, steps=(5, 10), dead=False):
    generator = torch.Generator().manual_seed(0)
    scored = len(steps)
    log_weights = torch.log_softmax(torch.randn(prompts, particles, generator=generator, dtype=torch.float64), dim=1)
    if dead:
        log_weights[0] = -math.inf
    return SteeringResult(
        prompts=["a $green heart", ""][:prompts],
        prompt_indices=[4, 9][:prompts],
        samples=torch.rand(prompts, particles, 3, 8, 8, generator=generator),
        rewards=torch.rand(prompts, particles, generator=generator).double(),
        log_weights=log_weights,
        log_z=torch.zeros(prompts).double(),
        steps=steps,
        scored_steps=steps,
        num_steps=20,
        ess=torch.rand(scored + 1, prompts, generator=generator).double() + 1,
        reward_path=torch.rand(scored, prompts, particles, generator=generator).double(),
        ancestors=torch.randint(0, particles, (scored, prompts, particles), generator=generator),
        resampled=torch.ones(scored, prompts, dtype=torch.bool),
        degenerate=torch.zeros(prompts, dtype=torch.bool),
        dropped=torch.zeros(prompts, dtype=torch.int64),
        previews=torch.randint(0, 255, (scored, prompts, particles, 3, 4, 4), generator=generator).to(torch.uint8),
        flagged=None,
        settings={},
        budget=Budget(seconds=2.0),
    )


def _read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "histograms": 0})
    reader.Reload()
    return reader


def _run(callback, results, log_dir, rank=0):
    trainer = SimpleNamespace(log_dir=str(log_dir), default_root_dir=str(log_dir), global_rank=rank)
    callback.on_predict_start(trainer, None)
    for i, result in enumerate(results):
        callback.on_predict_batch_end(trainer, None, result, None, i)
    callback.on_predict_end(trainer, None)


def test_logs_pictures_and_scalars(tmp_path):
    result = _result()
    _run(TensorBoardParticles(), [result, None], tmp_path)
    events = _read(tmp_path)
    tags = events.Tags()
    assert {"00004/images", "00004/previews", "00004/lineages", "00009/images"} <= set(tags["images"])
    assert "00004/log_weights" in tags["histograms"]
    assert [e.step for e in events.Scalars("00004/ess")] == [5, 10, 20]
    best = {e.step: e.value for e in events.Scalars("prompts/reward_best")}
    for b, index in enumerate(result.prompt_indices):
        assert best[index] == pytest.approx(float(result.rewards[b].max()), rel=1e-6)
    std = events.Scalars("prompts/final_log_weight_std")[0].value
    assert std == pytest.approx(float(result.log_weights[0].std(correction=0)), rel=1e-6)
    highest = [e.value for e in events.Scalars("00009/reward/max")]
    assert highest[0] == pytest.approx(float(result.reward_path[0, 1].max()), rel=1e-6)
    assert events.Scalars("prompts/seconds")[0].value == pytest.approx(1.0)


def test_logs_the_parts_of_the_reward(tmp_path):
    parts = {"Standardized(my.red)": torch.tensor([[1.0, 2.0, 4.0], [math.nan, 1.0, 1.0]]).double()}
    result = dataclasses.replace(_result(), terms=parts)
    _run(TensorBoardParticles(), [result], tmp_path)
    events = _read(tmp_path)
    means = events.Scalars("prompts/terms/Standardized_my.red/mean")
    assert [event.step for event in means] == [4, 9]
    expected = float((result.log_weights[0].exp() * parts["Standardized(my.red)"][0]).sum())
    assert means[0].value == pytest.approx(expected, rel=1e-6)
    assert math.isnan(means[1].value)
    best = events.Scalars("prompts/terms/Standardized_my.red/best")[0].value
    assert best == float(parts["Standardized(my.red)"][0, result.rewards[0].argmax()])


@pytest.mark.parametrize("rewarded", [False, True])
def test_logs_corrected_guidance_and_its_reward_if_there_is_one(tmp_path, rewarded):
    steps, particles = 4, 3
    generator = torch.Generator().manual_seed(0)
    result = GuidanceResult(
        prompts=["a green heart"],
        prompt_indices=[4],
        samples=torch.rand(1, particles, 3, 8, 8, generator=generator),
        log_weights=torch.log_softmax(torch.randn(1, particles, generator=generator, dtype=torch.float64), dim=1),
        log_z=torch.zeros(1).double(),
        ess=torch.rand(steps + rewarded, 1, generator=generator).double() + 1,
        log_weight_std=torch.rand(steps, 1, generator=generator).double(),
        stepwise_kl=torch.rand(steps, 1, generator=generator).double(),
        weighted_steps=tuple(range(steps)),
        ancestors=torch.randint(0, particles, (steps, 1, particles), generator=generator),
        resampled=torch.ones(steps, 1, dtype=torch.bool),
        degenerate=torch.zeros(1, dtype=torch.bool),
        dropped=torch.zeros(1, dtype=torch.int64),
        num_steps=steps,
        rewards=torch.rand(1, particles, generator=generator).double() if rewarded else None,
        reward_path=torch.rand(1, 1, particles, generator=generator).double() if rewarded else None,
        steps=tuple(range(steps)),
        scored_steps=(2,) if rewarded else (),
        flagged=None,
        settings={},
        budget=Budget(seconds=2.0),
    )
    _run(TensorBoardParticles(), [result], tmp_path)
    events = _read(tmp_path)
    tags = events.Tags()
    assert {"00004/images", "00004/lineages"} <= set(tags["images"]) and "00004/previews" not in tags["images"]
    assert [e.step for e in events.Scalars("00004/ess")] == [0, 1, 2, 3, 4]
    std = result.log_weight_std[:, 0]
    assert [e.value for e in events.Scalars("00004/log_weight_std")] == pytest.approx(std.tolist(), rel=1e-6)
    assert events.Scalars("prompts/log_weight_std")[0].value == pytest.approx(float(std.mean()), rel=1e-6)
    assert ("prompts/reward_best" in tags["scalars"]) == ("00004/reward/max" in tags["scalars"]) == rewarded
    if rewarded:
        assert [e.step for e in events.Scalars("00004/reward/max")] == [2, 4]
        assert events.Scalars("prompts/reward_best")[0].value == pytest.approx(float(result.rewards.max()), rel=1e-6)


def test_draws_few_prompts_but_counts_all(tmp_path):
    _run(TensorBoardParticles(max_prompts=1), [_result()], tmp_path)
    tags = _read(tmp_path).Tags()
    assert not any(tag.startswith("00009/") for tag in tags["images"] + tags["scalars"])
    assert [e.step for e in _read(tmp_path).Scalars("prompts/ess")] == [4, 9]


def test_runs_without_scored_steps_or_living_particles(tmp_path):
    bare = _result(prompts=1, steps=(), dead=True)
    _run(TensorBoardParticles(), [bare], tmp_path)
    tags = _read(tmp_path).Tags()
    assert "00004/lineages" not in tags["images"]
    assert "00004/log_weights" not in tags["histograms"]


def test_each_process_writes_its_own_file(tmp_path):
    for rank in (0, 1):
        _run(TensorBoardParticles(), [_result(prompts=1)], tmp_path, rank=rank)
    assert len(list(tmp_path.glob("events.*"))) == 2


def test_works_without_a_trainer(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        log_result(writer, _result(), drawn=0)
    assert "prompts/ess" in _read(tmp_path).Tags()["scalars"]


def test_the_tree_is_that_of_the_report_with_every_edge():
    result = _result(particles=5, steps=(2, 4, 6))
    record = parse_record(result.record(0))
    tree = family_tree(record, result.images[0], result.previews[:, 0].permute(0, 1, 3, 4, 2).numpy())
    assert sum(isinstance(shape, Curve) for shape in tree.shapes) == 3 * 5
    image = lineage_image(result, 0)
    assert image.size == (math.ceil(tree.width), math.ceil(tree.height))
    returned = [shape for shape in tree.shapes if isinstance(shape, Thumbnail)][-5:]
    for shape, sample in zip(returned, result.samples[0], strict=True):
        inside = [round(v) for v in (shape.x + 6, shape.y + 6, shape.x + shape.side - 6, shape.y + shape.side - 6)]
        painted = torch.from_numpy(np.asarray(image.crop(inside), dtype=np.float64).mean((0, 1)) / 255)
        assert painted == pytest.approx(sample.mean((1, 2)).double(), abs=0.1), "the sample is where it belongs"


def test_trees_of_many_particles_and_without_previews_are_painted():
    for particles, previews in ((1, True), (20, False)):
        result = _result(prompts=1, particles=particles, steps=tuple(range(16)))
        result = result if previews else dataclasses.replace(result, previews=None)
        assert np.asarray(lineage_image(result, 0)).std() > 0


def test_refuses_a_negative_number_of_prompts():
    with pytest.raises(ValueError, match="expected max_prompts of at least 0"):
        TensorBoardParticles(max_prompts=-1)
