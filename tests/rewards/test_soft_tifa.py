"""SoftTIFA against probabilities that were found one question and one image at a time."""

import math

import pytest
import torch
from tiny_vlm import write_tiny_qwen

from fklit.rewards import Function, RewardError, SoftTIFA, VQAScore
from fklit.rewards.soft_tifa import spellings
from fklit.rewards.testing import RewardTests

pytestmark = pytest.mark.slow  # the quick tests have HPSv2 and ImageReward

IMAGES = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
PROMPTS = ["four hearts", "four hearts", "a red heart"]
FOUR = {"prompt": "four hearts", "vqa_list": [["How many hearts are in the image?", "four"], ["Any hearts?", "Yes"]]}
RED = {"prompt": "a red heart", "vqa_list": [("Is it red?", "Yes"), ("What color?", "red"), ("Is it blue?", "No")]}
KNOWN = [FOUR, FOUR, RED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_qwen(tmp_path_factory.mktemp("vlm"))


def probabilities(folder, image, pairs):
    """What the model answers, with the processor, one question at a time; all tokens that spell the answer."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    found = []
    for question, answer in pairs:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": f"{question} Answer in one word."}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            row = model(**inputs).logits[0, -1].softmax(-1)
        wanted = {answer.lower(), *(["4"] if answer == "four" else [])}
        ids = {i for text, i in processor.tokenizer.get_vocab().items() if text.removeprefix("Ġ").lower() in wanted}
        found.append(float(row[sorted(ids)].sum()))
    return found


@pytest.mark.parametrize("max_batch", [None, 1, 2])
@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_it_is_the_mean_over_questions(folder, mean, max_batch):
    found = SoftTIFA(VQAScore(str(folder), max_batch=max_batch), mean=mean)(IMAGES, PROMPTS, KNOWN)
    expected = []
    for image, known in zip(IMAGES, KNOWN, strict=True):
        parts = probabilities(folder, image, known["vqa_list"])
        expected.append(math.prod(parts) ** (1 / len(parts)) if mean == "geometric" else sum(parts) / len(parts))
    assert found.tolist() == pytest.approx(expected, rel=1e-3)


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        reward = SoftTIFA(VQAScore(str(self.folder), max_batch=max_batch))
        plain = reward.score  # the contract calls without metadata
        reward.score = lambda samples, prompts, metadata=None: plain(samples, prompts, [FOUR] * len(prompts))
        return reward


def test_an_impossible_answer_is_zero_and_nan_stays_nan():
    class Answers(VQAScore):
        def load(self):
            return self

        def answer_log_probability(self, images, questions, answers):
            return torch.tensor([-math.inf, 0.0, math.log(0.5), math.nan])[: len(questions)]

    pairs = {"vqa_list": [["a", "Yes"], ["b", "Yes"]]}
    assert SoftTIFA(Answers("m"))(IMAGES[:1], ["p"], [pairs]).tolist() == [0.0]
    assert SoftTIFA(Answers("m"), mean="arithmetic")(IMAGES[:2], ["p"] * 2, [pairs] * 2).tolist()[0] == 0.5
    assert SoftTIFA(Answers("m"))(IMAGES[:2], ["p"] * 2, [pairs] * 2)[1].isnan()


@pytest.mark.parametrize(
    ("answer", "forms"),
    [
        ("Yes", ["Yes", "yes"]),
        (" four", ["four", "Four", "4"]),
        ("4", ["4", "four", "Four"]),
        ("12", ["12"]),
        ("ten", ["ten", "Ten", "10"]),
    ],
)
def test_spellings(answer, forms):
    assert spellings(answer) == forms


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            None,
            r"expected questions under 'vqa_list' in the metadata of 'four hearts', got 'prompt'; give",
        ),
        ([{"vqa": []}] * 3, "under 'vqa_list' in the metadata of 'four hearts', got 'vqa'"),
        ([{"vqa_list": []}] * 3, "expected pairs of a question and an answer under 'vqa_list'"),
        ([{"vqa_list": "Is it?"}] * 3, "expected pairs of a question and an answer"),
        ([{"vqa_list": [["Is it?"]]}] * 3, "expected pairs of a question and an answer"),
        ([{"vqa_list": [["Is it?", 4]]}] * 3, "expected pairs of a question and an answer"),
        ([{"vqa_list": [["Is it?", " "]]}] * 3, "expected pairs of a question and an answer"),
        ([{"vqa_list": [["Who?", "Rumpelstiltskin"]]}] * 3, "an answer that is one token of .*, got 'Rumpelstiltskin'"),
    ],
)
def test_prompts_without_questions_are_refused(folder, known, words):
    with pytest.raises(RewardError, match=words):
        SoftTIFA(VQAScore(str(folder)))(IMAGES, PROMPTS, known)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="a reward that answers questions as vqa, got a Function; give"):
        SoftTIFA(Function(lambda images: images))
    with pytest.raises(ValueError, match="mean='harmonic' is not known"):
        SoftTIFA(VQAScore("m"), mean="harmonic")
