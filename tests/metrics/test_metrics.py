"""Metrics: against a plain computation, in any split, after pickling and reset."""

import pickle

import pytest
import torch

from fklit.emoji.prompts import ScenePrompt, Wanted
from fklit.metrics import CLIPDiversity, Compositional, FoundObject, MeanCLIPScore, SampleBatch, pairwise_distance
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
    """One sample of each prompt."""
    images = torch.zeros(len(kinds), 3, 64, 64)
    images[:, 0, 0, 0] = torch.tensor([float(kind) for kind in kinds])
    return images[:, None]


def batch(metadata=(), prompts=None, first=0):
    """A batch of prompts, numbered from `first`, whose first samples are the chosen ones."""
    number = len(metadata) if prompts is None else len(prompts)
    return SampleBatch(
        prompts or [""] * number,
        metadata or [{}] * number,
        torch.zeros(number, dtype=torch.int64),
        torch.arange(first, first + number),
    )


def make():
    metric = Compositional("unused")
    metric.judge.find = Finds()
    return metric


def test_compositional_is_the_mean_over_tasks():
    metric = make()
    metric.update(pictures(1, 0, 2, 1), batch([CAT] * 4))
    metric.update(pictures(2, 1), batch([HEARTS] * 2, first=4))
    result = {name: float(value) for name, value in metric.compute().items()}
    assert result["single_object"] == 0.5 and result["counting"] == 0.5
    assert result["overall"] == 0.5 and set(result) == {
        "overall", "overall_exact", "overall_partial", "single_object", "counting",
    }  # fmt: skip
    metric.update(pictures(2), batch([HEARTS], first=6))
    assert float(metric.compute()["overall"]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    metric.reset()
    metric.update(pictures(1), batch([CAT]))
    assert float(metric.compute()["overall"]) == 1


def test_compositional_refuses_unknown_tasks():
    for line in ({**CAT, "tag": "texture"}, {"include": CAT["include"]}):
        with pytest.raises(ValueError, match=r"expected a tag of .*'position'.*, got ('texture'|None); give"):
            make().update(pictures(1), batch([line]))


def test_metrics_of_single_samples_see_the_chosen_ones(clip_folder):
    samples = torch.cat([pictures(0, 2), pictures(1, 1)], dim=1)
    metric = make()
    metric.update(samples, SampleBatch(["", ""], [CAT, CAT], torch.tensor([1, 0]), torch.arange(2)))
    assert float(metric.compute()["single_object"]) == 0.5
    metric = MeanCLIPScore(str(clip_folder))
    chosen = SampleBatch(PROMPTS[:2], [{}] * 2, torch.tensor([2, 1]), torch.arange(2))
    metric.update(IMAGES.unflatten(0, (2, 3)), chosen)
    expected = 100 * CLIPScore(str(clip_folder))(IMAGES[[2, 4]], PROMPTS[:2]).double().mean()
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-5)


def test_mean_clip_score(clip_folder):
    expected = 100 * CLIPScore(str(clip_folder))(IMAGES, PROMPTS).double().mean()
    metric = MeanCLIPScore(str(clip_folder))
    metric.update(IMAGES[:4, None], batch(prompts=PROMPTS[:4]))
    metric = pickle.loads(pickle.dumps(metric))
    metric.update(IMAGES[4:, None], batch(prompts=PROMPTS[4:], first=4))
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
    metric.update(IMAGES[:1].expand(4, -1, -1, -1)[None], batch(prompts=[""]))
    assert float(metric.compute()) == pytest.approx(0, abs=1e-6)
    metric.update(IMAGES.unflatten(0, (2, 3)), batch(prompts=["", ""], first=1))
    features = CLIPScore(str(clip_folder)).embed_images(IMAGES)
    expected = pairwise_distance(features.unflatten(0, (2, 3))).sum() / 3
    assert float(metric.compute()) == pytest.approx(float(expected), abs=1e-7)
    with pytest.raises(ValueError, match="expected at least 2 samples a prompt, got 1"):
        metric.update(IMAGES[:, None], batch(prompts=[""] * 6))
