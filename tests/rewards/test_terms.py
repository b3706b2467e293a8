"""Parts of composites: named, in their own units, and carried from the reward to the record."""

import copy
import json
import math

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.report.record import parse_record
from fklit.rewards import Clipped, Frames, Function, Min, Product, Standardized, WeightedSum
from fklit.rewards.scoring import Scorer

IMAGES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def red(images):
    return images[:, 0].mean((1, 2))


def blue(images):
    return images[:, 2].mean((1, 2))


RED, BLUE = f"{__name__}.red", f"{__name__}.blue"


def both(**options):
    return WeightedSum([Function(red, **options), Standardized(Function(blue), mean=0.5, std=0.1)], [1.0, -2.0])


def test_every_part_is_told_in_its_own_unit():
    reward = both()
    assert reward.terms() == {}
    total = reward(IMAGES)
    terms = reward.terms()
    assert list(terms) == [RED, f"Standardized({BLUE})", BLUE]
    assert torch.equal(terms[RED], red(IMAGES))
    assert torch.equal(terms[BLUE], blue(IMAGES))
    assert torch.allclose(terms[f"Standardized({BLUE})"], (blue(IMAGES) - 0.5) / 0.1)
    assert torch.allclose(total, terms[RED] - 2 * terms[f"Standardized({BLUE})"])
    assert reward(IMAGES[:2]).shape == reward.terms()[RED].shape == (2,)


def test_parts_of_one_name_are_told_apart():
    reward = Min([Function(red), Function(red), Product([Function(red), Function(blue)])])
    reward(IMAGES)
    assert list(reward.terms()) == [RED, f"{RED} (2)", "Product", f"{RED} (3)", BLUE]
    assert torch.equal(reward.terms()["Product"], red(IMAGES) * blue(IMAGES))


def test_terms_hold_no_graph_and_plain_rewards_have_none():
    reward = Clipped(Function(red), low=0.4)
    reward(IMAGES.clone().requires_grad_())
    assert not any(values.requires_grad for values in reward.terms().values())
    assert list(reward.terms()) == [RED]
    assert Function(red).terms() == {}
    copy.deepcopy(reward)


def test_frames_reduce_each_part():
    videos = IMAGES[:4].reshape(2, 2, 3, 4, 4)
    reward = Frames(WeightedSum([Function(red), Function(blue)], [1.0, 1.0]), reduce="min")
    reward(videos)
    assert torch.equal(reward.terms()[RED], red(IMAGES[:4]).reshape(2, 2).amin(1))
    assert torch.equal(reward.terms()[BLUE], blue(IMAGES[:4]).reshape(2, 2).amin(1))


@pytest.mark.parametrize("max_batch", [None, 1, 2, 4])
def test_a_scorer_puts_the_parts_of_its_chunks_together(max_batch):
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    scorer = Scorer(both(max_batch=1), ["a", "b"], 3, max_batch=max_batch, on_nan="error")
    scorer(images, where="here")
    assert scorer.terms[RED].dtype == torch.float64
    assert torch.allclose(scorer.terms[RED], red(images).reshape(2, 3).double())
    assert torch.allclose(scorer.terms[BLUE], blue(images).reshape(2, 3).double())
    plain = Scorer(Function(red), ["a", "b"], 3, max_batch=max_batch, on_nan="error")
    plain(images, where="here")
    assert plain.terms == {}


def test_results_and_records_hold_the_parts():
    pipeline = tiny_stable_diffusion()
    options = {"num_particles": 3, "reward_scale": 1.0, "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0}}
    options["max_batch"] = 2
    result = fklit.steer(pipeline, ["a cat", "a dog"], reward=both(), **options)
    samples = result.samples.flatten(0, 1)
    assert torch.allclose(result.terms[RED], red(samples).reshape(2, 3).double(), atol=1e-6)
    assert torch.allclose(result.terms[BLUE], blue(samples).reshape(2, 3).double(), atol=1e-6)
    total = result.terms[RED] - 2 * result.terms[f"Standardized({BLUE})"]
    assert torch.allclose(total, result.rewards, atol=1e-5)
    record = json.loads(json.dumps(result.record(1), allow_nan=False))
    assert record["terms"][BLUE] == pytest.approx(result.terms[BLUE][1].tolist())
    assert parse_record(record).terms[RED] == pytest.approx(result.terms[RED][1].numpy())
    assert list(result.to("cpu").terms) == list(result.terms)
    plain = fklit.steer(pipeline, "a cat", reward=red, **options)
    assert plain.terms == plain.record(0)["terms"] == {}
    older = {key: value for key, value in record.items() if key != "terms"}
    assert parse_record(older).terms == {}


def test_corrected_guidance_holds_them_too():
    result = fklit.correct(
        tiny_stable_diffusion(),
        "a cat",
        num_particles=2,
        reward=both(),
        reward_scale=1.0,
        guidance_scale=1.5,
        pipeline_kwargs={"num_inference_steps": 3, "eta": 1.0},
    )
    assert torch.allclose(result.terms[RED], red(result.samples[0]).double()[None], atol=1e-6)


def test_of_a_sample_that_is_not_finite_no_part_is_a_number():
    def sometimes(images):
        scores = red(images)
        scores[0] = math.nan
        return scores

    scorer = Scorer(Min([Function(sometimes), Function(blue)]), ["a"], 5, max_batch=None, on_nan="drop")
    scorer(IMAGES, where="here")
    first = scorer.terms[f"{sometimes.__module__}.{sometimes.__qualname__}"]
    assert first.isnan().tolist() == [[True, False, False, False, False]]
