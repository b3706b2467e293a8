"""What a run says of rewards that couple rows or never differ, and what it costs."""

import warnings

import pytest
import torch

import fklit
from fklit.rewards import Function, InconsistentRewardWarning
from fklit.rewards.scoring import Scorer

IMAGES = torch.linspace(0.1, 0.9, 6).view(6, 1, 1, 1).expand(6, 3, 4, 4).contiguous()


def _mean(images):
    return images.mean((1, 2, 3))


def _scorer(reward, max_batch=None, num_particles=3, on_nan="error"):
    return Scorer(Function(reward), ["a", "b"], num_particles, max_batch=max_batch, on_nan=on_nan)


COUPLED = {
    "softmax": lambda x: _mean(x).softmax(0),
    "standardized": lambda x: (_mean(x) - _mean(x).mean()) / (_mean(x).std() + 1e-6) if len(x) > 1 else _mean(x) * 0,
    "standardized to NaN": lambda x: (_mean(x) - _mean(x).mean()) / _mean(x).var(correction=0).sqrt(),
    "ranks": lambda x: _mean(x).argsort().flip(0).float(),
}


@pytest.mark.parametrize("name", COUPLED)
def test_a_reward_that_couples_rows_is_found(name):
    with pytest.warns(InconsistentRewardWarning, match=r"gave a sample .* in a batch of 6 and .* alone") as caught:
        _scorer(COUPLED[name])(IMAGES, where="now")
    ours = [
        str(item.message) for item in caught if item.category is InconsistentRewardWarning
    ]  # torch warns of std, too
    assert len(ours) == 1 and "depend on what else is in the batch" in ours[0]


def test_a_reward_that_cannot_score_one_sample_is_found():
    def squeezes(images):
        return images.mean((1, 2, 3)).squeeze()[:, None]

    with pytest.warns(InconsistentRewardWarning, match=r"squeezes expected to score one sample alone, got RewardError"):
        _scorer(squeezes)(IMAGES, where="now")


@pytest.mark.parametrize("max_batch", [None, 2, 4])
@pytest.mark.parametrize("reward", [_mean, lambda x: _mean(x).bfloat16(), lambda x: _mean(x) * 1e4 - 3])
def test_one_sample_more_is_scored_once_a_run_and_nothing_is_said(reward, max_batch):
    scorer = _scorer(reward, max_batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = scorer(IMAGES, where="now")
        assert (scorer.reward_calls, scorer.reward_checks) == (6, 1)
        assert torch.equal(scorer(IMAGES, where="later"), first)
        scorer.finish()
    assert (scorer.reward_calls, scorer.reward_checks) == (12, 1)


def test_single_samples_cost_nothing_more():
    for scorer, images in ((_scorer(_mean, max_batch=1), IMAGES), (_scorer(_mean, num_particles=1), IMAGES[:2])):
        scorer(images, where="now")
        assert scorer.reward_checks == (scorer._max_batch is None)
    alone = Scorer(Function(_mean), ["a"], 1, max_batch=None, on_nan="error")
    alone(IMAGES[:1], where="now")
    assert (alone.reward_calls, alone.reward_checks) == (1, 0)


CONSTANT = {
    "constant": lambda x: torch.full((len(x),), 0.25),
    "softmax of one": lambda x: torch.ones(len(x)),
    "scaled twice": lambda x: 0.3 + (x / 255 / 255).mean((1, 2, 3)) * 1e-4,
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_reward_is_found_at_the_end(name):
    scorer = _scorer(CONSTANT[name])
    for where in ("now", "later"):
        scorer(IMAGES, where=where)
    with pytest.warns(
        InconsistentRewardWarning, match="gave every sample of this run the score .* nothing was steered"
    ):
        scorer.finish()


def test_equal_pictures_and_a_score_that_differs_once_are_no_constant_reward():
    equal = _scorer(CONSTANT["constant"])
    equal(IMAGES[:1].expand(6, -1, -1, -1), where="now")
    equal.finish()
    late = _scorer(lambda x: (_mean(x) > 0.8).float())  # a yes-or-no reward, yes for one picture at the end
    late(IMAGES / 2, where="now")
    late(IMAGES, where="at the end")
    late.finish()
    dropped = _scorer(lambda x: torch.full((len(x),), torch.nan), on_nan="drop")
    dropped(IMAGES, where="now")
    dropped.finish()


@pytest.mark.slow
def test_a_run_warns_once_and_counts_what_it_spent():
    from tiny import tiny_stable_diffusion

    pipeline = tiny_stable_diffusion()
    settings = {
        "reward_scale": 1.0, "num_particles": 3, "reward_schedule": fklit.Schedule(indices=(1, 2)),
        "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0},
    }  # fmt: skip
    with pytest.warns(InconsistentRewardWarning) as caught:
        result = fklit.steer(pipeline, ["a cat", "a dog"], reward=COUPLED["softmax"], **settings)
    assert len(caught) == 1 and (result.budget.reward_calls, result.budget.reward_checks) == (6 * 3, 1)
    with pytest.warns(InconsistentRewardWarning) as caught:
        fklit.steer(pipeline, "a cat", reward=CONSTANT["constant"], **settings)
    assert len(caught) == 1


def test_steered_rewards_get_the_metadata_of_each_particle():
    from tiny import tiny_stable_diffusion

    seen = []

    def reward(images, prompts, metadata):
        seen.append([(prompt, item["count"]) for prompt, item in zip(prompts, metadata, strict=True)])
        return images.mean((1, 2, 3)) * torch.tensor([item["count"] for item in metadata])

    pipeline = tiny_stable_diffusion()
    given = {"reward": reward, "reward_scale": 1.0, "num_particles": 2, "pipeline_kwargs": {"num_inference_steps": 2}}
    metadata = [{"count": 1}, {"count": 2}]
    both = [("a cat", 1), ("a cat", 1), ("a dog", 2), ("a dog", 2)]
    fklit.steer(pipeline, ["a cat", "a dog"], metadata=metadata, potential="terminal", **given)
    assert seen == [both, both[:1]]
    seen.clear()
    call = {**given, "pipeline_kwargs": {"num_inference_steps": 2, "eta": 1.0}, "potential": "terminal"}
    fklit.correct(pipeline, ["a cat", "a dog"], metadata=metadata, guidance_scale=2.0, **call)
    assert seen[0] == both
    with pytest.raises(ValueError, match=r"metadata expected 2 mapping\(s\)"):
        fklit.steer(pipeline, ["a cat", "a dog"], metadata=metadata[:1], **given)
