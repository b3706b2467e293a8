"""Labels of texts against transformers one text at a time; labels by name; what has no label."""

import pytest
import torch
from tiny_language_models import TEXTS, write_text_classifier

from fklit.rewards import RewardError, TextClassifier
from fklit.rewards.testing import RewardTests

LABELS = ["unacceptable", "acceptable", "Not_English"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text_classifier(tmp_path_factory.mktemp("classifier"), LABELS)


class TestContract(RewardTests):
    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return TextClassifier(self.folder, "acceptable", max_batch=max_batch)

    def make_samples(self, count):
        return TEXTS[:count]


def logits(folder, texts):
    """One text at a time, without padding, in float64."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([network(input_ids=torch.tensor([tokenizer(text).input_ids])).logits for text in texts])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_log_probabilities_of_labels(tmp_path, kind):
    folder = write_text_classifier(tmp_path, LABELS, kind=kind, length=64)
    shares = logits(folder, TEXTS).softmax(-1)
    assert shares[:, 1].log().std() > 0.05
    for number in (0, 2):  # also of one length, and as many at once as rows
        twice = TextClassifier(folder, number, max_batch=4, pad=kind == "bert")([*TEXTS[:2], *TEXTS[:2]])
        assert torch.allclose(twice, shares[[0, 1, 0, 1], number].log(), atol=1e-5)
    for number in range(3):
        assert torch.allclose(TextClassifier(folder, number)(TEXTS), shares[:, number].log(), atol=1e-5)
        unwanted = TextClassifier(folder, number, unwanted=True)(TEXTS)
        assert torch.allclose(unwanted, (1 - shares[:, number]).log(), atol=1e-5)


def test_independent_labels_have_a_sigmoid_each(tmp_path):
    folder = write_text_classifier(tmp_path / "said", LABELS, problem_type="multi_label_classification")
    chances = logits(folder, TEXTS)[:, 2].sigmoid()
    assert torch.allclose(TextClassifier(folder, "not english")(TEXTS), chances.log(), atol=1e-5)
    unwanted = TextClassifier(folder, "not english", unwanted=True)(TEXTS)
    assert torch.allclose(unwanted, (1 - chances).log(), atol=1e-5)
    left_out = write_text_classifier(tmp_path / "left_out", LABELS)
    assert torch.allclose(TextClassifier(left_out, 2, multi_label=True)(TEXTS), chances.log(), atol=1e-5)
    one = write_text_classifier(tmp_path / "one", ["toxic"])
    with pytest.raises(
        ValueError, match=r"a classifier, got .*, which has 1 label\(s\).*; choose another model, or set"
    ):
        TextClassifier(one, "toxic").load()
    assert torch.allclose(
        TextClassifier(one, "toxic", multi_label=True)(TEXTS), logits(one, TEXTS)[:, 0].sigmoid().log(), atol=1e-5
    )


def test_tiny_probabilities_stay_exact(folder):
    network = TextClassifier(folder, 0).load().network
    with torch.no_grad():
        network.network.classifier.weight.mul_(200)
    wanted, absent = network.log_probabilities(TEXTS)
    assert (wanted.min() < -60 and absent.max() < 0) or absent.min() < -60
    assert torch.isfinite(wanted).all() and torch.isfinite(absent).all()


def test_scores_do_not_depend_on_the_batch_bit_for_bit_when_filled(folder):
    reward = TextClassifier(folder, 1, max_batch=4, pad=True)
    assert torch.equal(reward(TEXTS), torch.cat([reward([text]) for text in TEXTS]))


def test_labels_by_metadata_and_by_name(folder):
    reward = TextClassifier(folder)
    found = reward(TEXTS[:3], metadata=[{"label": "Acceptable"}, {"label": 0}, {"label": "not english"}])
    expected = logits(folder, TEXTS[:3]).log_softmax(-1)[torch.arange(3), torch.tensor([1, 0, 2])]
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(RewardError, match="expected the label of each prompt in its metadata under 'label', got"):
        reward(TEXTS[:1])
    with pytest.raises(RewardError, match=r"a label of its model .* got 'rude'; give one of these"):
        reward(TEXTS[:1], metadata=[{"label": "rude"}])
    with pytest.raises(ValueError, match=r"got 'aceptable'; did you mean 'acceptable'\?"):
        TextClassifier(folder, "aceptable").load()


def test_empty_and_long_texts(folder):
    with pytest.raises(RewardError, match="TextClassifier expected a text with words, got ' '; set empty='nan'"):
        TextClassifier(folder, 1)([TEXTS[0], " "])
    assert TextClassifier(folder, 1, empty="nan")([TEXTS[0], "", "go"]).isnan().tolist() == [False, True, False]
    long = "go " * 60
    with pytest.raises(RewardError, match=r"texts of at most 40 tokens, .* got 62; set max_tokens=40"):
        TextClassifier(folder, 1)([long])
    cut = TextClassifier(folder, 1, max_tokens=8)([long])  # <s>, six words, </s>
    assert torch.allclose(cut, TextClassifier(folder, 1)(["go " * 6]), atol=1e-6)


def test_models_that_do_not_classify_are_refused(tmp_path):
    folder = write_text_classifier(tmp_path, LABELS, problem_type="regression")
    with pytest.raises(ValueError, match="problem type 'regression'; choose another model"):
        TextClassifier(folder, 0).load()
    with pytest.raises(OSError, match="TextClassifier expected AutoTokenizer to load"):
        TextClassifier(str(tmp_path / "none"), 0).load()
