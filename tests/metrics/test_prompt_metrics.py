"""Metrics of one number a prompt: any split, padding and pickle give the same; by label; what is not finite."""

import copy
import pickle

import pytest
import torch

from fklit.feynman_kac import ParticleResult
from fklit.metrics import CLIPDiversity, Compositional, MeanCLIPScore, RewardMetric, SampleBatch, UniqueRoots
from fklit.rewards import CLIPScore, Frames, Function

SAMPLES = torch.rand(7, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SAMPLES = SAMPLES * torch.rand(7, 3, 3, 1, 1, generator=torch.Generator().manual_seed(1))  # colors that differ
CHOSEN = torch.tensor([0, 2, 1, 1, 0, 2, 0])
TAGS = ["colors", "position", "colors", "counting", "position", "colors", "counting"]


def redness(images, prompts, metadata):
    assert [line["prompt"] for line in metadata] == list(prompts)
    return images[:, 0].mean((1, 2))


def batch(rows, result=None):
    prompts = [f"prompt {row}" for row in rows]
    metadata = [{"prompt": prompt, "tag": TAGS[row]} for prompt, row in zip(prompts, rows, strict=True)]
    return SampleBatch(prompts, metadata, CHOSEN[rows], torch.tensor(rows, dtype=torch.int64), result)


def fed(metric, *parts):
    for rows in parts:
        metric.update(SAMPLES[rows], batch(rows))
    return metric


def red(rows=range(7)):
    return [float(SAMPLES[row, CHOSEN[row], 0].double().mean()) for row in rows]


SPLITS = ([[*range(7)]], [[0, 1, 2], [3, 4, 5, 6]], [[6, 5], [], [3, 1, 0, 2], [4, 6, 6, 0]])


@pytest.mark.parametrize("split", SPLITS)
def test_a_reward_as_a_metric_is_its_mean_over_prompts_in_any_split(split):
    metric = fed(RewardMetric(Function(redness)), *split)
    assert float(metric.compute()) == pytest.approx(sum(red()) / 7, rel=1e-6)
    assert metric.compute().dtype == torch.float64
    metric.reset()
    assert float(fed(metric, [1, 1]).compute()) == pytest.approx(red()[1], rel=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_by_a_key_of_the_metadata(split):
    found = fed(RewardMetric(Function(redness), by="tag"), *split).compute()
    assert list(found) == ["mean", "colors", "counting", "position"]
    for tag in set(TAGS):
        own = red([row for row in range(7) if TAGS[row] == tag])
        assert float(found[tag]) == pytest.approx(sum(own) / len(own), rel=1e-6)
    assert float(found["mean"]) == pytest.approx(sum(red()) / 7, rel=1e-6)


def test_a_label_that_is_missing_or_long_is_refused():
    metric = RewardMetric(Function(redness), by="kind")
    with pytest.raises(ValueError, match=r"expected 'kind' in the metadata of every prompt, got \['prompt', 'tag'\]"):
        fed(metric, [0])
    long = SampleBatch(["a"], [{"prompt": "a", "kind": "x" * 65}], CHOSEN[:1], torch.tensor([0]))
    with pytest.raises(ValueError, match="expected labels of at most 64 bytes, got 'xxx"):
        metric.update(SAMPLES[:1], long)


def test_what_is_not_finite_is_refused_or_left_out_and_told():
    def some(images, prompts):
        values = images[:, 0].mean((1, 2))
        for row, prompt in enumerate(prompts):
            values[row] = {"prompt 2": -torch.inf, "prompt 5": torch.nan}.get(prompt, values[row])
        return values

    with pytest.raises(ValueError, match="RewardMetric expected a finite value of every prompt, got -inf for 'prompt"):
        fed(RewardMetric(Function(some)), [1, 2, 3])
    found = fed(RewardMetric(Function(some), on_nan="omit", by="tag"), [0, 1, 2], [3, 4, 5, 6]).compute()
    left = [row for row in range(7) if row not in (2, 5)]
    assert float(found["mean"]) == pytest.approx(sum(red(left)) / 5, rel=1e-6)
    assert float(found["colors"]) == pytest.approx(red()[0], rel=1e-6)
    assert float(found["omitted"]) == pytest.approx(2 / 7)
    plain = fed(RewardMetric(Function(some), on_nan="omit"), [2, 5]).compute()
    assert list(plain) == ["mean", "omitted"] and plain["mean"].isnan() and float(plain["omitted"]) == 1
    with pytest.raises(ValueError, match="on_nan='drop' is not known"):
        RewardMetric(Function(some), on_nan="drop")


def test_no_prompt_gives_no_number():
    assert fed(RewardMetric(Function(redness)), []).compute().isnan()
    assert float(fed(RewardMetric(Function(redness), by="tag"), [], [3]).compute()["mean"]) == pytest.approx(red()[3])


def test_the_reward_is_the_same_as_called(clip_folder):
    reward = CLIPScore(str(clip_folder))
    metric = fed(RewardMetric(reward), [0, 1, 2])
    expected = reward(SAMPLES[torch.arange(3), CHOSEN[:3]], ["prompt 0", "prompt 1", "prompt 2"]).double().mean()
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-5) and metric.reward is reward
    assert float(fed(MeanCLIPScore(str(clip_folder)), [0, 1, 2]).compute()) == pytest.approx(
        100 * float(expected), rel=1e-5
    )


def test_videos_are_measured_by_rewards_of_videos():
    videos = torch.rand(2, 3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    metric = RewardMetric(Frames(Function(lambda images: images[:, 0].mean((1, 2)))))
    metric.update(videos, batch([0, 1]))
    expected = videos[torch.arange(2), CHOSEN[:2], :, 0].double().mean()
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["reward", "clip", "diversity"])
def test_copies_and_pickles_go_on(kind, clip_folder):
    make = {
        "reward": lambda: RewardMetric(CLIPScore(str(clip_folder)), by="tag"),
        "clip": lambda: MeanCLIPScore(str(clip_folder), by="tag"),
        "diversity": lambda: CLIPDiversity(str(clip_folder), by="tag"),
    }[kind]
    whole = fed(make(), [*range(7)]).compute()
    first = fed(make(), [0, 1, 2])
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        found = fed(copied, [2, 3, 4, 5, 6]).compute()
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {name: float(value) for name, value in whole.items()}, rel=1e-5
        )


def test_the_judge_counts_each_prompt_once_and_pickles():
    marks = torch.tensor([[1, 1, 1], [0, 0, 0.5], [1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0.5], [1, 1, 1]]).double()
    metric = Compositional()
    for rows in ([0, 1, 2], [2, 0], [3, 4, 5, 6]):
        metric = pickle.loads(pickle.dumps(metric))
        metric.update(SAMPLES[rows], batch(rows), marks[rows])
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx({
        "overall": (2 / 3 + 1 / 2 + 1 / 2) / 3, "overall_exact": (1 / 3 + 1 / 2 + 1 / 2) / 3,
        "overall_partial": (2.5 / 3 + 1 / 2 + 1.5 / 2) / 3, "counting": 0.5, "colors": 2 / 3, "position": 0.5,
    })  # fmt: skip


def test_diversity_by_hand(clip_folder):
    unit = CLIPScore(str(clip_folder)).embed_images(SAMPLES.flatten(0, 1)).unflatten(0, (7, 3)).double()
    by_hand = [sum(1 - float(unit[row, i] @ unit[row, j]) for i, j in ((0, 1), (0, 2), (1, 2))) / 3 for row in range(7)]
    metric = fed(CLIPDiversity(str(clip_folder), max_batch=4), [3, 1], [0, 2, 4, 5, 6])
    assert sum(by_hand) / 7 > 1e-5
    assert float(metric.compute()) == pytest.approx(sum(by_hand) / 7, rel=0.02)
    with pytest.raises(ValueError, match=r"variety \(CLIPDiversity\) expected at least 2 samples a prompt, got 1;"):
        metric.check_run("variety", num_prompts=3, num_particles=1)
    metric.check_run("variety", num_prompts=None, num_particles=None)


def test_unique_roots_are_those_of_the_result():
    ancestors = (torch.tensor([[0, 0, 1], [2, 2, 2]]),)
    result = ParticleResult(
        samples=SAMPLES[:2], log_weights=torch.full((2, 3), 1 / 3).double().log(), log_z=torch.zeros(2).double(),
        steps=(0,), ess=torch.ones(1, 2).double(), ancestors=ancestors, resampled=torch.ones(1, 2).bool(),
        degenerate=torch.zeros(2).bool(), dropped=torch.zeros(2).long(),
    )  # fmt: skip
    metric = UniqueRoots(by="tag")
    metric.update(SAMPLES[:2], batch([0, 1], result))
    assert {name: float(value) for name, value in metric.compute().items()} == {
        "mean": 1.5, "colors": 2.0, "position": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="UniqueRoots expected the result of a method with particles, got none"):
        metric.update(SAMPLES[:2], batch([0, 1]))


def test_networks_of_metrics_stay_in_evaluation_mode(clip_folder):
    metric = MeanCLIPScore(str(clip_folder)).train()
    metric.load()
    assert not any(part.training for part in metric.train().modules())
