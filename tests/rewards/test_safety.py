"""SafetyPenalty against probabilities in float64 of a second reading of the network."""

import pytest
import torch
from plain_vit import logits, write_classifier

from fklit.rewards import ImageClassifier, SafetyPenalty
from fklit.rewards.testing import RewardTests

LABELS = ["drawings", "hentai", "neutral", "porn", "sexy"]
SPOTS = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
IMAGES = torch.nn.functional.interpolate(SPOTS, size=(28, 28))


@pytest.fixture
def folder(tmp_path):
    write_classifier(tmp_path, ["normal", "nsfw"])
    return tmp_path


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return SafetyPenalty(str(self.folder), max_batch=max_batch)


def test_with_two_labels_it_is_the_log_probability_of_the_other(folder):
    assert torch.equal(SafetyPenalty(str(folder))(IMAGES), ImageClassifier(str(folder), "normal")(IMAGES))


def test_several_labels_are_added_up(tmp_path):
    weights = write_classifier(tmp_path, LABELS)
    unwanted = ["porn", "Hentai", 4]
    ours, theirs = IMAGES.clone().requires_grad_(), IMAGES.clone().requires_grad_()
    scores = SafetyPenalty(str(tmp_path), unwanted)(ours)
    expected = (1 - logits(theirs, weights).double().softmax(-1)[:, [1, 3, 4]].sum(-1)).log()
    assert (scores <= 0).all()
    assert torch.allclose(scores.double(), expected, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_independent_labels_are_multiplied(tmp_path):
    weights = write_classifier(tmp_path, LABELS, problem_type="multi_label_classification")
    scores = SafetyPenalty(str(tmp_path), LABELS)(IMAGES)
    expected = (1 - logits(IMAGES, weights).double().sigmoid()).log().sum(-1)
    assert torch.allclose(scores.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [60.0, -60.0])
def test_it_is_exact_where_a_probability_is_tiny(folder, bias):
    reward = SafetyPenalty(str(folder)).load()
    before = reward(IMAGES)
    reward.network.network.classifier.bias[1] += bias
    after = reward(IMAGES)
    if bias > 0:  # P(normal) about exp(-60), whose logarithm 1 - P in float32 would call -inf
        assert torch.allclose(after - (before.exp() / (1 - before.exp())).log(), torch.full((4,), -bias), atol=1e-3)
    else:
        assert ((after <= 0) & (after > -1e-6)).all()


@pytest.mark.parametrize(
    ("unwanted", "words"),
    [
        ("naked", r"SafetyPenalty expected a label of its model \('normal', 'nsfw'\), got 'naked'; give one of these"),
        (["normal", "nsfw"], r"a label that is not unwanted, got all of \['normal', 'nsfw'\]; omit those"),
    ],
)
def test_labels_that_the_model_does_not_have_are_refused(folder, unwanted, words):
    with pytest.raises(ValueError, match=words):
        SafetyPenalty(str(folder), unwanted).load()
    with pytest.raises(ValueError, match="at least one unwanted label, got"):
        SafetyPenalty(str(folder), [])


def test_half_precision_is_near(folder):
    full, half = SafetyPenalty(str(folder))(IMAGES), SafetyPenalty(str(folder)).half()(IMAGES.half())
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=0.03)
