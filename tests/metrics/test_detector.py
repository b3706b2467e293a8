"""The detector: targets and peaks are inverse to each other, and the folder round-trips."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fklit import assets
from fklit.emoji.training.center_points import center_targets, focal_loss
from fklit.metrics import CenterDetector, Judge
from fklit.metrics.detector import STRIDE, decode

CLASSES = [("cat", None), ("heart", "red"), ("heart", "blue")]


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = CenterDetector(3, (8, 8, 8, 8))
    save_file({name: value.half() for name, value in detector.state_dict().items()}, folder / "model.safetensors")
    settings = {"classes": CLASSES, "widths": (8, 8, 8, 8), "threshold": 0.4, "min_distance": 10.0}
    (folder / "config.json").write_text(json.dumps(settings))
    return str(folder)


def test_decoding_inverts_the_targets():
    classes = torch.tensor([[0, 2, -1], [1, -1, -1], [-1, -1, -1]])
    boxes = torch.zeros(3, 3, 4)
    boxes[0, 0] = torch.tensor([2.0, 3.0, 30.0, 31.0])
    boxes[0, 1] = torch.tensor([33.0, 30.0, 61.0, 60.0])
    boxes[1, 0] = torch.tensor([20.0, 22.0, 47.0, 49.0])
    heat, geometry, places = center_targets(classes, boxes, num_classes=3, side=16)
    assert heat.amax() == 1 and heat.amin() >= 0
    dense = torch.zeros(3, 4, 16, 16)
    picture, row, column = places.T
    dense[picture, :, row, column] = geometry
    found = decode(torch.logit(heat, 1e-4), dense, classes=CLASSES, threshold=0.9, min_distance=10.0)
    assert [sorted((item.noun, item.color, item.box) for item in items) for items in found] == [
        [("cat", None, (2.0, 3.0, 30.0, 31.0)), ("heart", "blue", (33.0, 30.0, 61.0, 60.0))],
        [("heart", "red", (20.0, 22.0, 47.0, 49.0))],
        [],
    ]


def test_near_peaks_are_one_object():
    heat = torch.full((1, 3, 16, 16), -9.0)
    heat[0, 0, 8, 8], heat[0, 1, 8, 10] = 3.0, 2.0
    for distance, number in ((10.0, 1), (7.0, 2)):
        (found,) = decode(heat, torch.zeros(1, 4, 16, 16), classes=CLASSES, threshold=0.4, min_distance=distance)
        assert len(found) == number
        assert found[0].noun == "cat"
        assert found[0].score == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert STRIDE * 2 == 8  # what the two distances are about


def test_the_loss_prefers_the_truth():
    heat, _, _ = center_targets(torch.tensor([[1]]), torch.tensor([[[8.0, 8, 36, 36]]]), num_classes=3, side=16)
    right = focal_loss(torch.logit(heat, 1e-3), heat)
    assert right < focal_loss(torch.full_like(heat, -4.0), heat)
    assert right < focal_loss(torch.logit(heat.roll(4, 3), 1e-3), heat)


def test_an_image_is_judged_alike_alone_and_in_a_batch(judge_folder):
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for size in (256, 1, 2):
        judge = Judge(judge_folder, max_batch=size)
        judge.load()
        judge.settings["threshold"] = 0.005  # random weights are never sure
        found.append([[(item.noun, item.color) for item in items] for items in judge.find(images)])
    assert found[0] == found[1] == found[2] and any(found[0])


def test_wrong_input_is_refused(judge_folder):
    with pytest.raises(ValueError, match="divisible by 16"):
        Judge(judge_folder).find(torch.rand(1, 3, 60, 64))
    with pytest.raises(ValueError, match="metadata for each of 2 images, got 1"):
        Judge(judge_folder).judge(torch.rand(2, 3, 64, 64), [{"include": [{"class": "cat"}]}])
    with pytest.raises(ValueError, match="expected max_batch of at least 1, got 0"):
        Judge(judge_folder, max_batch=0)


def test_the_default_size_is_that_of_the_shipped_detector():
    shipped = load_file(assets.path("emoji_judge") / "model.safetensors")
    assert {name: value.shape for name, value in CenterDetector(40).state_dict().items()} == {
        name: value.shape for name, value in shipped.items()
    }


def test_building_consumes_no_global_randomness(judge_folder):
    before = torch.get_rng_state()
    Judge(judge_folder).load()
    assert torch.equal(before, torch.get_rng_state())
