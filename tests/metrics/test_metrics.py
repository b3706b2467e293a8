"""Metrics: against a plain computation, in any split, after pickling and reset."""

import pickle

import pytest
import torch

from fklit.emoji.prompts import ScenePrompt, Wanted
from fklit.metrics import CLIPDiversity, Compositional, FoundObject, MeanCLIPScore, pairwise_distance
from fklit.rewards import CLIPScore

IMAGES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(2))
PROMPTS = ["a cat", "a dog"] * 3
CAT = ScenePrompt("single_object", (Wanted("cat"),)).metadata()
HEARTS = ScenePrompt("counting", (Wanted("heart", "red", 2),)).metadata()


class Finds:
    """Stands for the network: what is found is written in the first pixel."""

    lists = (
        (),
        (FoundObject("cat", None, (0, 0, 20, 20)),),
        (FoundObject("heart", "red", (0, 0, 20, 20)), FoundObject("heart", "red", (30, 0, 50, 20))),
    )

    def __call__(self, images):
        return [self.lists[int(value)] for value in images[:, 0, 0, 0]]


def pictures(*kinds):
    images = torch.zeros(len(kinds), 3, 64, 64)
    images[:, 0, 0, 0] = torch.tensor([float(kind) for kind in kinds])
    return images


def make():
    metric = Compositional("unused")
    metric.judge.find = Finds()
    return metric


def test_compositional_is_the_mean_over_tasks():
    metric = make()
    metric.update(pictures(1, 0, 2, 1), [CAT, CAT, CAT, CAT])
    metric.update(pictures(2, 1), [HEARTS, HEARTS])
    result = {name: float(value) for name, value in metric.compute().items()}
    assert result["single_object"] == 0.5 and result["counting"] == 0.5
    assert result["overall"] == 0.5 and set(result) == {
        "overall", "overall_exact", "overall_partial", "single_object", "counting",
    }  # fmt: skip
    metric.update(pictures(2), [HEARTS])
    assert float(metric.compute()["overall"]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    metric.reset()
    metric.update(pictures(1), [CAT])
    assert float(metric.compute()["overall"]) == 1


def test_compositional_adds_up_over_processes():
    one, first, second = make(), make(), make()
    one.update(pictures(1, 0, 2), [CAT, CAT, HEARTS])
    first.update(pictures(1), [CAT])
    second.update(pictures(0, 2), [CAT, HEARTS])
    for name in ("correct", "exact", "partial", "total"):
        assert torch.equal(getattr(one, name), getattr(first, name) + getattr(second, name))


def test_compositional_refuses_unknown_tasks():
    with pytest.raises(ValueError, match="tag"):
        make().update(pictures(1), [{**CAT, "tag": "texture"}])


def test_mean_clip_score(clip_folder):
    expected = 100 * CLIPScore(str(clip_folder))(IMAGES, PROMPTS).double().mean()
    metric = MeanCLIPScore(str(clip_folder))
    metric.update(IMAGES[:4], PROMPTS[:4])
    metric = pickle.loads(pickle.dumps(metric))
    metric.update(IMAGES[4:], PROMPTS[4:])
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-5)


def test_pairwise_distance_against_a_loop():
    features = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = features / features.norm(dim=-1, keepdim=True)
    for group in range(3):
        pairs = [1 - float(unit[group, i] @ unit[group, j]) for i in range(4) for j in range(i)]
        assert float(pairwise_distance(features)[group]) == pytest.approx(sum(pairs) / len(pairs))
    assert float(pairwise_distance(features[:1, :1].expand(1, 3, 8))[0]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_distance(features[:, :1])


def test_diversity(clip_folder):
    metric = CLIPDiversity(str(clip_folder))
    metric.update(IMAGES[:1].expand(4, -1, -1, -1), 4)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-6)
    metric.update(IMAGES, 3)
    features = CLIPScore(str(clip_folder)).embed_images(IMAGES)
    expected = pairwise_distance(features.unflatten(0, (2, 3))).sum() / 3
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-5)
    for size in (1, 4):
        with pytest.raises(ValueError, match="group_size"):
            metric.update(IMAGES, size)
